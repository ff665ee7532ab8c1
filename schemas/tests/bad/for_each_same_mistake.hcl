migration "orders" {
  for_each = { eu = { window = "48h" }, us = { window = "ever" } }
  pausd    = true
  source {
    uri = "mongodb://${each.kye}.example.net"
  }
  destination {
    uri = "mongodb://b.example.net"
  }
  cutover {
    window = each.value.window
  }
}
migration "plain" {
  foreach = ["eu"]
  source {
    uri = "mongodb://${each.key}.example.net"
  }
  destination {
    uri = "mongodb://b.example.net"
  }
}
