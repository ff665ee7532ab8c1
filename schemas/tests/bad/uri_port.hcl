migration "orders" {
  source {
    uri = "mongodb://a:99999"
  }
  destination {
    uri = "mongodb://b:27017"
  }
}
