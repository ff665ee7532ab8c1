migration "orders" {
  source {
    uri = "mongodb://a"
    tls {
      ca_file = ""
    }
  }
  destination {
    uri = "mongodb://b:27017"
  }
}
