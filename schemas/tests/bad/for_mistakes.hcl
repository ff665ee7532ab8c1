locals {
  a = [for x in 5 : x]
  b = {for x in ["a", "a"] : x => 1}
  c = [for x in ["a"] : x if "maybe"]
  d = [for x in ["a"] : y]
  e = {for x in ["a"] : [x] => 1}
}
migration "orders" {
  source {
    uri = "mongodb://a:27017"
  }
  destination {
    uri = "mongodb://b:27017"
  }
}
