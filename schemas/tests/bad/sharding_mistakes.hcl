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
    collection "shop.b" {
      key = ["a:1", "b.c:1", "a:hashed"]
    }
    collection "shop.c" {
      key = ["a.b:1", "a:1"]
    }
    collection "shop.d" {
      key = ["a..b:1"]
    }
    collection "shop.e" {
      key    = ["a:1"]
      unique = true
    }
    collection {
    }
  }
}
