daemon {
  endpoint = "tcp://daemon.example.net"
}
migration "orders" {
  source {
    uri = "mongodb://a:27017"
  }
  destination {
    uri = "mongodb://b:27017"
  }
}
