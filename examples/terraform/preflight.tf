# The live checks before anything starts: `terraform plan` fails where one of them does.

data "cutover_preflight" "orders" {
  name = "orders"

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

  lifecycle {
    postcondition {
      condition     = self.passed
      error_message = join("\n", [for check in self.checks : "${check.name}: ${check.message}" if check.outcome == "fail"])
    }
  }
}

# Where a migration stands that is declared elsewhere.
data "cutover_migration" "invoices" {
  name      = "invoices"
  workspace = "billing"
}

output "invoices_are_moved" {
  value = data.cutover_migration.invoices.destination_writable
}
