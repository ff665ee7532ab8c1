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
  sharding {
    balancer = "manage"
    collection "shop.orders" {
      key = ["customer:1", "_id:hashed"]
    }
  }
  verify {
    mode = "full"
  }
}
