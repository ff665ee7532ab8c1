# Moves a sharded cluster to another one, with another number of shards.
#
#   cutover preflight
#   cutover plan
#   cutover apply
#
# Both URIs name mongos routers, never a shard. The daemon finds the source's shards by them and reads each one directly: its machine
# has to resolve and reach the members of every shard, and with access control the user has to be made on every shard as well, since
# users that a mongos makes are the config server's alone.

daemon {
  endpoint  = "unix:///run/cutover/cutoverd.sock"
  workspace = "shop"
}

variable "source_uri" {
  default = "mongodb://mongos-1.example.net:27017,mongos-2.example.net:27017"
}

variable "destination_uri" {
  default = "mongodb://new-mongos.example.net:27017"
}

migration "shop" {
  source {
    uri      = var.source_uri
    username = "migrator"
    password = { env = "SHOP_SOURCE_PASSWORD" }
  }

  destination {
    uri      = var.destination_uri
    username = "migrator"
    password = { env = "SHOP_DESTINATION_PASSWORD" }
  }

  namespaces {
    include = ["shop.*"]
  }

  sharding {
    # The run stops the source's balancer, and gives it back once it is completed or cancelled. With "require_off", the default,
    # nothing starts while it is on.
    balancer = "manage"

    # Collections are sharded by the key that they have on the source; those named here by another one.
    collection "shop.orders" {
      key = ["customer:1", "_id:hashed"]
    }
  }

  cutover {
    window = "72h"

    # `cutover status` shows the token of a run that is ready; setting it here is what cuts over.
    acknowledge = null
  }
}
