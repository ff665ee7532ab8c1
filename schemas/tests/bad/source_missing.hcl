migration "orders" {
  destination {
    uri = "mongodb://b"
  }
}
