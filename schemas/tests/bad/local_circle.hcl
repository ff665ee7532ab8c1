locals {
  a = local.b
  b = [local.c]
  c = "${local.a}"
  d = local.a
}
migration "orders" {
  source {
    uri = "mongodb://a:27017"
  }
  destination {
    uri = "mongodb://b:27017"
  }
}
