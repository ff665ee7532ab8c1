migration "a" "b" {
  source {
    uri = "mongodb://a"
  }
  destination {
    uri = "mongodb://b"
  }
}
