variable "window" {
  default = "1h"
}
locals {
  lag = "1s"
}
migration "orders" {
  source {
    uri = "mongodb://a:27017"
  }
  destination {
    uri = "mongodb://b:27017"
  }
  cutover {
    window  = window
    max_lag = lag
  }
}
