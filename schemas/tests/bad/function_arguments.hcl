migration "orders" {
  source {
    uri = "mongodb://a:27017"
  }
  destination {
    uri = "mongodb://b:27017"
  }
  cutover {
    window  = join()
    max_lag = upper("a", "b")
    max_downtime = format("%d", "x")
  }
}
