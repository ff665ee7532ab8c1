variable "pw" {
  default = "hunter2"
  sensitive = true
}
migration "orders" {
  source {
    uri      = "mongodb://a"
    username = "u"
    password = var.pw
  }
  destination {
    uri = "mongodb://b:27017"
  }
}
