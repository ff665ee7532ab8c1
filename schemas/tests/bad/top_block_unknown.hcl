migrations "orders" {
}
