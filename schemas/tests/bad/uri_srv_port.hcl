migration "orders" {
  source {
    uri = "mongodb+srv://a:27017"
  }
  destination {
    uri = "mongodb://b:27017"
  }
}
