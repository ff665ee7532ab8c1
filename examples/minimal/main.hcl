# The least that a migration needs: everything else has a default.

migration "orders" {
  source {
    uri      = "mongodb://orders-1.old.example.net:27017,orders-2.old.example.net:27017/?replicaSet=rs0"
    username = "migrator"
    password = { env = "ORDERS_SOURCE_PASSWORD" } # of the daemon's environment
  }

  destination {
    uri      = "mongodb+srv://orders.new.example.net"
    username = "migrator"
    password = { env = "ORDERS_DESTINATION_PASSWORD" }
  }
}
