migration "orders" {
  source {
    url = "mongodb://a"
  }
  destination {
    uri = "b"
  }
  generation = 0
  paused = 5
  cutover {
    window = "x"
    acknowlege = "y"
  }
  namespaces {
    include = ["x"]
  }
}
