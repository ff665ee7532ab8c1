migration "orders" {
  source {
    uri      = "mongodb://a/?authMechanism=SCRAM-SHA-256&AUTHSOURCE=d%25b&ssl=true&tls=true&w=majority&retryWrites=true"
    username = "migrator"
    password = { env = "P" }
  }
  destination {
    uri = "mongodb+srv://b/?authMechanism=DEFAULT&uuidRepresentation=standard&compressors=zstd&socketTimeoutMS=1000"
  }
}
