migration "orders" {
  source {
    uri = "mongodb://a:27017"
  }
  destination {
    uri = "mongodb://A/?replicaSet=rs0"
  }
}
