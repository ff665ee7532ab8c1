migration "bom" {
  source {
    uri = "mongodb://a"
  }
  destination {
    uri = "mongodb://b"
  }
}
