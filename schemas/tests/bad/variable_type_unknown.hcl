variable "n" {
  type    = integer
  default = 1
}
variable "m" {
  type    = "string"
  default = "x"
}
variable "o" {
  type    = list()
  default = []
}
variable "p" {
  type    = 5
  default = []
}
migration "orders" {
  source {
    uri = "mongodb://a:27017"
  }
  destination {
    uri = "mongodb://b:27017"
  }
}
