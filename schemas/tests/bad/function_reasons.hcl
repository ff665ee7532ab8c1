locals {
  a = jsondecode("{")
  b = file("nowhere.txt")
  c = element([], 0)
  d = regex("(", "x")
  e = range(1, 100000)
  f = lookup({}, "x")
  g = format("%s %s", "x")
  h = format("%y", 1)
  i = tonumber("x")
  j = sum(["a"])
  k = zipmap(["a"], [])
  l = parseint("z", 10)
  m = one([1, 2])
  n = index(["a"], "b")
}
migration "orders" {
  source {
    uri = "mongodb://a:27017"
  }
  destination {
    uri = "mongodb://b:27017"
  }
}
