migration "orders" {
  source {
    uri      = "mongodb://a"
    username = "u"
    password = hunter2
  }
  destination {
    uri = "mongodb://b:27017"
  }
}
