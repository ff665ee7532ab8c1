migration "orders" {
  source {
    uri = { host = "a" }
  }
  destination {
    uri = "mongodb://b:27017"
  }
}
