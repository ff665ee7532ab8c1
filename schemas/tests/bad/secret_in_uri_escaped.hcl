migration "orders" {
  source {
    uri = "mongodb://u:hunter2%40a:27017"
  }
  destination {
    uri = "mongodb://b:27017"
  }
}
