locals {
  a = "x-${["a"]}"
  b = "x-${null}"
  c = "%{ if 5 }x%{ endif }"
  d = "%{ for x in 5 }x%{ endfor }"
  e = <<-EOT
    ${nope}
  EOT
}
migration "orders" {
  source {
    uri = "mongodb://a:27017"
  }
  destination {
    uri = "mongodb://b:27017"
  }
}
