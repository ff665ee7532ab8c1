migration "orders" {
  source {
    uri = null
  }
  destination {
    uri = "mongodb://b:27017"
  }
}
