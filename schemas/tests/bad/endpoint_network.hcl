daemon {
  endpoint = "https://daemon.example.net:7411"
}
migration "orders" {
  source {
    uri = "mongodb://a:27017"
  }
  destination {
    uri = "mongodb://b:27017"
  }
}
