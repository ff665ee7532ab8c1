migration "orders" {
  paused = true
  source {
    uri = "mongodb://a/?tls=true&tlsAllowInvalidCertificates=true"
  }
  destination {
    uri = "mongodb://b"
  }
  namespaces {
    include = ["local.*", "shop.*", "cutover_internal.x"]
  }
  cutover {
    acknowledge = "some-token"
  }
}

migration "invoices" {
  source {
    uri = "mongodb://c"
  }
  destination {
    uri = "mongodb://d"
  }
  cutover {
    acknowledge = ""
  }
}
