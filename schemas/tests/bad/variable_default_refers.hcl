variable "a" {
  default = 1
}
variable "b" {
  default = var.a
}
migration "orders" {
  source {
    uri = "mongodb://a:27017"
  }
  destination {
    uri = "mongodb://b:27017"
  }
}
