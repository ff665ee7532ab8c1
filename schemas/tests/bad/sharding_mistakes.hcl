migration "orders" {
  source {
    uri = "mongodb://a:27017"
  }
  destination {
    uri = "mongodb://b:27017"
  }
  sharding {
    balancer = "off"
    collection "orders" {
      key = ["customer:2"]
    }
    collection "shop.a" {
      key = ["a:hashed", "b:hashed"]
    }
    collection "shop.a" {
      key = []
    }
    collection {
    }
  }
}
