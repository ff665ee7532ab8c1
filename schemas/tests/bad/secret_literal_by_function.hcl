migration "orders" {
  source {
    uri      = "mongodb://a"
    username = "u"
    password = lower("HUNTER2")
  }
  destination {
    uri = "mongodb://b:27017"
  }
}
