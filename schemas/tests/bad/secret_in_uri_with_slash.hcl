migration "orders" {
  source {
    uri = "mongodb+srv://u:hunter2/x@a"
  }
  destination {
    uri = "mongodb://b:27017"
  }
}
