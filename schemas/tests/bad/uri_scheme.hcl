migration "orders" {
  source {
    uri = "http://a"
  }
  destination {
    uri = "mongodb://b:27017"
  }
}
