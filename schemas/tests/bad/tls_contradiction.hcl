migration "orders" {
  source {
    uri = "mongodb://a/?tls=false"
    tls {
    }
  }
  destination {
    uri = "mongodb://b:27017"
  }
}
