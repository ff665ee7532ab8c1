migration "orders" {
  source {
    uri = "mongodb://a:27017"
  }
  destination {
    uri          = "mongodb://b"
    block_writes = true
  }
  copy {
    indexes = "before_copy"
  }
  verify {
    mode = "full"
  }
}
