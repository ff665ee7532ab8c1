# var: acknowledge=orders-token
# env: CUTOVER_VAR_databases=["shop", "billing"]

daemon {
  endpoint  = "unix:///run/cutover/cutoverd.sock"
  workspace = "payments"
}

variable "databases" {
  type = list(string)
}

variable "acknowledge" {
  type     = string
  default  = null
  nullable = true
}

variable "limits" {
  type = object({
    lag      = optional(string, "10s")
    downtime = optional(string, "5m")
  })
  default = { lag = "3s" }
}

locals {
  hosts = { source = ["a-1", "a-2"], destination = ["b-1"] }
  uri   = { for side, names in local.hosts : side => "mongodb://${join(",", [for name in names : "${name}.example.net:27017"])}/?replicaSet=rs0" }
}

migration "orders" {
  generation = 2
  paused     = false

  source {
    uri      = local.uri.source
    username = "migrator"
    password = { env = "ORDERS_SOURCE_PASSWORD" }
    tls {
      ca_file              = "certs/source-ca.pem"
      certificate_key_file = "certs/client.pem"
    }
  }

  destination {
    uri           = local.uri["destination"]
    username      = "migrator"
    password      = { file = "secrets/orders" }
    existing_data = "drop"
    block_writes  = false
    tls {}
  }

  namespaces {
    include       = [for db in var.databases : "${db}.*"]
    exclude       = ["*.tmp_*"]
    include_users = false
  }

  copy {
    parallelism = 8
    indexes     = "after_copy"
    rate_limit  = "50MB/s"
  }

  verify { mode = "off" }

  cutover {
    window        = "1h30m"
    extensions    = 2
    max_lag       = var.limits.lag
    max_downtime  = var.limits.downtime
    source_writes = "observe"
    source_after  = "open"
    acknowledge   = var.acknowledge
  }
}
