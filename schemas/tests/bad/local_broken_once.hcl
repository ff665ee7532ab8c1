locals {
  a = nope("x")
}
migration "orders" {
  source {
    uri = "mongodb://a:27017"
  }
  destination {
    uri = "mongodb://b:27017"
  }
  cutover {
    window  = local.a
    max_lag = local.a
  }
}
