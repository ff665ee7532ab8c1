# Many migrations of one shape: `for_each` makes one of each tenant, named tenant-acme, tenant-globe and so on.

daemon {
  workspace = "tenants"
}

variable "tenants" {
  description = "The tenants that move, with what differs between them."
  type = map(object({
    host      = string
    databases = list(string)
    window    = optional(string, "72h")
  }))
}

migration "tenant" {
  for_each = var.tenants

  source {
    uri      = "mongodb://shared-0.example.net:27017,shared-1.example.net:27017/?replicaSet=shared"
    username = "migrator"
    password = { env = "SHARED_PASSWORD" }
  }
  destination {
    uri      = "mongodb+srv://${each.value.host}"
    username = "migrator"
    password = { file = "/run/secrets/tenants/${each.key}" }
  }
  namespaces {
    include = [for database in each.value.databases : "${database}.*"]
  }
  cutover {
    window = each.value.window
  }
}
