migration "orders" {
  source {
    uri = "mongodb://a:27017"
  }
  destination {
    uri = "mongodb://b:27017"
  }
  cutover {
    acknowledge = timestamp()
  }
}
