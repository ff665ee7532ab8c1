migration {
  source {
    uri = "mongodb://a"
  }
  destination {
    uri = "mongodb://b"
  }
}
