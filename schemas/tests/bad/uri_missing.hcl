migration "orders" {
  source {
    username = "u"
    password = { env = "P" }
  }
  destination {
    uri = "mongodb://b:27017"
  }
}
