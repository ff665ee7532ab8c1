migration "orders" {
  source {
    uri = "mongodb://a/?tlsCAFile=ca.pem"
  }
  destination {
    uri = "mongodb://b:27017"
  }
}
