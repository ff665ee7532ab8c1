migration "orders" {
  source {
    uri = "mongodb://a/?tlsCertificateKeyFilePassword=hunter2"
  }
  destination {
    uri = "mongodb://b:27017"
  }
}
