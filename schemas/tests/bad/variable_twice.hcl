variable "a" {
  default = 1
}
variable "a" {
  default = 2
}
migration "orders" {
  source {
    uri = "mongodb://a:27017"
  }
  destination {
    uri = "mongodb://b:27017"
  }
}
