migration "orders" {
  source {
    uri      = "mongodb://a"
    password = { env = "P" }
  }
  destination {
    uri = "mongodb://b:27017"
  }
}
