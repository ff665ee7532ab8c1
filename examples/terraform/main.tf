# Moves everything that users made on one replica set to another, and cuts over when a reviewed change says so.
#
#   terraform plan
#   terraform apply
#
# The passwords are read by the daemon, from its environment; they are never in this file, a plan, a state or a log.

terraform {
  required_providers {
    cutover = {
      source = "cutover-dev/cutover"
    }
  }
}

provider "cutover" {
  endpoint  = var.endpoint
  workspace = "orders"
}

variable "endpoint" {
  description = "Where cutoverd listens."
  type        = string
  default     = "unix:///run/cutover/cutoverd.sock"
}

variable "acknowledge" {
  description = "The token of the run that is ready, in a reviewed change: it cuts over."
  type        = string
  default     = null
}

resource "cutover_migration" "orders" {
  name       = "orders"
  generation = 1

  # An apply waits until the run is ready, and one with an acknowledgement until the cutover is done.
  wait_for = "completed"

  source {
    uri      = "mongodb://orders-a.example.net:27017/?replicaSet=orders-a"
    username = "migrator"
    password = { env = "ORDERS_SOURCE_PASSWORD" }
  }

  destination {
    uri      = "mongodb://orders-b.example.net:27017/?replicaSet=orders-b"
    username = "migrator"
    password = { env = "ORDERS_DESTINATION_PASSWORD" }
  }

  cutover {
    window      = "24h"
    max_lag     = "10s"
    acknowledge = var.acknowledge
  }

  timeouts {
    update = "30m"
  }
}

output "acknowledge_token" {
  description = "What `acknowledge` takes while the run is ready."
  value       = cutover_migration.orders.acknowledge_token
}

output "phase" {
  value = cutover_migration.orders.phase
}
