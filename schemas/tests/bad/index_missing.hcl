locals {
  list = ["a"]
  object = { window = "1h" }
  a = local.list[1]
  b = local.object.windw
  c = local.list["x"]
  d = local.a.b
  e = "x".y
}
migration "orders" {
  source {
    uri = "mongodb://a:27017"
  }
  destination {
    uri = "mongodb://b:27017"
  }
}
