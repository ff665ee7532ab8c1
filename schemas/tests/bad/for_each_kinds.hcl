variable "hosts" {
  default   = ["a", "b"]
  sensitive = true
}
migration "a" {
  for_each = "eu"
}
migration "b" {
  for_each = ["eu", 3]
}
migration "c" {
  for_each = ["eu", "us", "eu"]
}
migration "d" {
  for_each = var.hosts
}
migration "e" {
  for_each = null
}
migration "f" {
  for_each = local.nothing
}
