migration "orders" {
  source {
    uri = "mongodb://u:hunter2@a:27017/?replicaSet=rs0"
  }
  destination {
    uri = "mongodb://b:27017"
  }
}
