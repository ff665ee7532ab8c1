migration "orders" {
  source {
    uri      = "mongodb://u@a"
  }
  destination {
    uri = "mongodb://b:27017"
  }
}
