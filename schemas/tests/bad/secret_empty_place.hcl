migration "orders" {
  source {
    uri      = "mongodb://a"
    username = "u"
    password = { env = "" }
  }
  destination {
    uri = "mongodb://b:27017"
  }
}
