migration "orders" {
  source {
