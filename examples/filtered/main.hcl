# Parts of a deployment, with settings that differ between staging and production.

daemon {
  workspace = "shop-${var.stage}"
}

migration "shop" {
  source {
    uri      = "mongodb://${join(",", local.source_hosts)}/?replicaSet=shop"
    username = "migrator"
    password = { file = "/run/secrets/shop-source" }
  }

  destination {
    uri           = var.destination_uri
    username      = "migrator"
    password      = { file = "/run/secrets/shop-destination" }
    existing_data = var.stage == "production" ? "refuse" : "drop"
  }

  namespaces {
    include = [for db in var.databases : "${db}.*"]
    exclude = concat(["*.tmp_*", "*.cache"], var.stage == "production" ? [] : ["*.audit"])
  }

  copy {
    parallelism = 8
  }

  cutover {
    window       = var.window
    extensions   = 0
    max_lag      = "5s"
    max_downtime = "2m"
    source_after = "blocked"
    acknowledge  = null # the token of a ready run, in a reviewed change
  }
}
