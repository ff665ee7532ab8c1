variable "o" {
  type = list(object({ host = string, port = optional(number, 27017) }))
  default = [{ host = "a" }, { port = 1 }]
}
migration "orders" {
  source {
    uri = "mongodb://a:27017"
  }
  destination {
    uri = "mongodb://b:27017"
  }
}
