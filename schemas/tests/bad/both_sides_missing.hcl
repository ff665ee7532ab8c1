migration "orders" {
}
