migration "orders" {
  source {
    uri      = "mongodb://a"
    username = "u"
    password = 12345
  }
  destination {
    uri = "mongodb://b:27017"
  }
}
