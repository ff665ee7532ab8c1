migration "orders" {
  for_each = toset(["a", "b"])
  source {
    uri = "mongodb://a"
  }
  destination {
    uri = "mongodb://b"
  }
}
