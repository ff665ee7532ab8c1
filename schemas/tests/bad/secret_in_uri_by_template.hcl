locals {
  pw = "hunter2"
}
migration "orders" {
  source {
    uri = "mongodb://u:${local.pw}@a"
  }
  destination {
    uri = "mongodb://b:27017"
  }
}
