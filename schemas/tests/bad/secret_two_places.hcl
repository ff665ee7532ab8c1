migration "orders" {
  source {
    uri      = "mongodb://a"
    username = "u"
    password = { env = "NAME", file = "x" }
  }
  destination {
    uri = "mongodb://b:27017"
  }
}
