locals {
  a = templatefile("a.tpl", { x = 1 })
  b = templatefile("b.tpl", {})
  c = templatefile("none.tpl", {})
}
migration "orders" {
  source {
    uri = "mongodb://a:27017"
  }
  destination {
    uri = "mongodb://b:27017"
  }
}
