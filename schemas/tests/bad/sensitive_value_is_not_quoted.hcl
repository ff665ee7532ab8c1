# var: w=hunter2
variable "w" {
  sensitive = true
}
migration "orders" {
  source {
    uri = "mongodb://a:27017"
  }
  destination {
    uri = "mongodb://b:27017"
  }
  cutover {
    window        = var.w
    source_writes = "x-${var.w}"
  }
  namespaces {
    include = [var.w]
  }
}
