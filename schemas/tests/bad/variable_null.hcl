# var: a=null
variable "a" {
  type     = list(string)
  nullable = false
}
variable "b" {
  nullable = false
  default  = null
}
migration "orders" {
  source {
    uri = "mongodb://a:27017"
  }
  destination {
    uri = "mongodb://b:27017"
  }
}
