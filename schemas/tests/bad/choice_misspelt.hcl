migration "orders" {
  source {
    uri = "mongodb://a:27017"
  }
  destination {
    uri = "mongodb://b"
    existing_data = "Drop"
  }
  cutover {
    source_writes = "blok"
    source_after = "closed"
  }
}
