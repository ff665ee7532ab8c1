migration "orders" {
  source {
    uri      = "mongodb://a"
    username = "u"
    password = {}
  }
  destination {
    uri = "mongodb://b:27017"
  }
}
