migration "orders" {
  source {
    uri      = "mongodb://a"
    username = "u"
    password = { evn = "NAME" }
  }
  destination {
    uri = "mongodb://b:27017"
  }
}
