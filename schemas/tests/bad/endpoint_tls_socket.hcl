daemon {
  endpoint = "unix:///run/cutover/cutoverd.sock"
  tls {
    ca_file              = "ca.pem"
    certificate_key_file = "client.pem"
  }
}
migration "orders" {
  source {
    uri = "mongodb://a:27017"
  }
  destination {
    uri = "mongodb://b:27017"
  }
}
