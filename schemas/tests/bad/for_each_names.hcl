migration "orders" {
  for_each = toset(["eu west", "us"])
  source {
    uri = "mongodb://a.example.net"
  }
  destination {
    uri = "mongodb://b.example.net"
  }
}
migration "orders-us" {
  source {
    uri = "mongodb://a.example.net"
  }
  destination {
    uri = "mongodb://b.example.net"
  }
}
