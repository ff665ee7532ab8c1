locals {
  a = "x" + 1
  b = 1 / 0
  c = [] + []
  d = !5
  e = 5 && true
  f = -"x"
  g = 5 ? 1 : 2
  h = "a" < "b"
}
migration "orders" {
  source {
    uri = "mongodb://a:27017"
  }
  destination {
    uri = "mongodb://b:27017"
  }
}
