locals {
  tenants = {
    acme  = { database = "acme", window = "48h" }
    globe = { database = "globe_prod", window = null }
  }
}

migration "tenant" {
  for_each = local.tenants
  source {
    uri = "mongodb://old.example.net/?replicaSet=old"
  }
  destination {
    uri = "mongodb://${each.key}.example.net/?replicaSet=new"
  }
  namespaces {
    include = ["${each.value.database}.*"]
  }
  cutover {
    window = each.value.window
  }
}

migration "region" {
  for_each = toset(["eu", "us"])
  source {
    uri = "mongodb://${each.value}-old.example.net/?replicaSet=old"
  }
  destination {
    uri = "mongodb://${each.key}-new.example.net/?replicaSet=new"
  }
}

migration "nobody" {
  for_each = {}
  source {
    uri = "mongodb://a.example.net"
  }
  destination {
    uri = "mongodb://b.example.net"
  }
}
