migration "a" {
  source {
    uri = "mongodb://a/?retryWritess=true"
  }
  destination {
    uri = "mongodb://b/?ssl=true&tls=false"
  }
}

migration "b" {
  source {
    uri = "mongodb://c/?authMechanism=GSSAPI"
  }
  destination {
    uri = "mongodb://%2Ftmp%2Fmongodb.sock"
  }
}

migration "c" {
  source {
    uri = "mongodb://e/?loadBalanced=true"
  }
  destination {
    uri      = "mongodb://u@f/?authMechanism=SCRAM-SHA-256"
    username = "v"
    password = { env = "P" }
  }
}

migration "d" {
  source {
    uri = "mongodb://g/?authMechanism=scram-sha-256"
  }
  destination {
    uri = "mongodb://h/?replicaSet="
  }
}
