# A sharded cluster: both URIs name mongos routers, and the user of the source is there on every shard too.

resource "cutover_migration" "shop" {
  name = "shop"

  source {
    uri      = "mongodb://mongos-1.example.net:27017,mongos-2.example.net:27017"
    username = "migrator"
    password = { env = "SHOP_SOURCE_PASSWORD" }
  }

  destination {
    uri      = "mongodb://new-mongos.example.net:27017"
    username = "migrator"
    password = { env = "SHOP_DESTINATION_PASSWORD" }
  }

  namespaces {
    include = ["shop.*"]
  }

  sharding {
    balancer = "manage"

    collection {
      namespace = "shop.orders"
      key       = ["customer:1", "_id:hashed"]
    }
  }
}
