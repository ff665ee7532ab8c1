# var: token=hunter2
variable "token" {
  type      = string
  sensitive = true
  validation {
    condition     = length(var.token) > 100
    error_message = "Not ${var.token}."
  }
  validation {
    condition     = tonumber(var.token) > 1
    error_message = "x"
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
