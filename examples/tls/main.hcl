# TLS with an authority of one's own, and a client certificate instead of a password.

migration "ledger" {
  source {
    uri      = "mongodb://ledger.old.example.net:27017/?replicaSet=ledger"
    username = "migrator"
    password = { env = "LEDGER_SOURCE_PASSWORD" }

    tls {
      ca_file = "certs/source-ca.pem" # relative to this file
    }
  }

  destination {
    uri = "mongodb://ledger.new.example.net:27017/?replicaSet=ledger&authMechanism=MONGODB-X509&authSource=$external"

    tls {
      ca_file              = "certs/destination-ca.pem"
      certificate_key_file = "/etc/cutover/ledger-client.pem" # the certificate and its key
    }
  }

  cutover {
    source_writes = "observe" # the application is stopped by its owners
    source_after  = "open"
  }
}
