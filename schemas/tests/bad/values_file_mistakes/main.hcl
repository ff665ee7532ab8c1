variable "hosts" {
  type = list(string)
}
variable "pin" {
  type      = number
  sensitive = true
}
migration "orders" {
  source {
    uri = "mongodb://a:27017"
  }
  destination {
    uri = "mongodb://b:27017"
  }
}
