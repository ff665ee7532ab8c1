migration "orders" {
  source {
    uri = "mongodb://a1,a2,a3"
  }
  destination {
    uri = "mongodb://b1,a3"
  }
}
