migration "crlf" {
  source {
    uri = "mongodb://a"
  }
  destination {
    uri = "mongodb://b"
  }
}
