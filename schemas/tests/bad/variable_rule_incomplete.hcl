variable "stage" {
  default = "x"
  validation {
    condition = 5
  }
}
migration "orders" {
  source {
    uri = "mongodb://a:27017"
  }
  destination {
    uri = "mongodb://b:27017"
  }
}
