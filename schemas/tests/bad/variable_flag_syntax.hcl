# var: hosts=a,b
variable "hosts" {
  type = list(string)
}
migration "orders" {
  source {
    uri = "mongodb://a:27017"
  }
  destination {
    uri = "mongodb://b:27017"
  }
}
