# Moves everything that users made on one replica set to another, and cuts over when a reviewed change says so.
#
#   cutover plan
#   cutover apply
#
# The passwords are read by the daemon, from its environment; they are never in this file, a plan or a log.

daemon {
  endpoint  = "unix:///run/cutover/cutoverd.sock"
  workspace = "orders"
}

variable "source_uri" {
  default = "mongodb://orders-a.example.net:27017/?replicaSet=orders-a"
}

variable "destination_uri" {
  default = "mongodb://orders-b.example.net:27017/?replicaSet=orders-b"
}

migration "orders" {
  generation = 1

  source {
    uri      = var.source_uri
    username = "migrator"
    password = { env = "ORDERS_SOURCE_PASSWORD" }
  }

  destination {
    uri      = var.destination_uri
    username = "migrator"
    password = { env = "ORDERS_DESTINATION_PASSWORD" }
  }

  cutover {
    window  = "24h"
    max_lag = "10s"

    # `cutover status` shows the token of a run that is ready; setting it here is what cuts over.
    acknowledge = null
  }
}
