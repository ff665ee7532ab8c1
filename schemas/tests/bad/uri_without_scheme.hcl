migration "orders" {
  source {
    uri = "a:27017"
  }
  destination {
    uri = "mongodb://b:27017"
  }
}
