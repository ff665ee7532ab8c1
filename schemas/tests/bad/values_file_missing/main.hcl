# var-file: tests/bad/values_file_missing/none.hclvars
migration "orders" {
  source {
    uri = "mongodb://a:27017"
  }
  destination {
    uri = "mongodb://b:27017"
  }
}
