//! The documents of each collection, as a pure function of seed and number.

use mongodb::bson::oid::ObjectId;
use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Binary, Bson, DateTime, Document, doc};
use rand::rngs::StdRng;
use rand::{Rng as _, RngCore as _, SeedableRng as _};

/// 2020-01-01, in ms since 1970: times are data here, not the clock's.
const EPOCH_MS: i64 = 1_577_836_800_000;
/// 2099-01-01, in ms since 1970: when what has a TTL expires.
const FAR_FUTURE_MS: i64 = 4_070_908_800_000;
const WORDS: [&str; 24] = [
    "amber", "basin", "cedar", "delta", "ember", "fjord", "grove", "harbour", "island", "jetty",
    "kelp", "lagoon", "meadow", "north", "orchard", "prairie", "quarry", "ridge", "summit",
    "tundra", "upland", "valley", "willow", "zephyr",
];
const COUNTRIES: [&str; 8] = ["AT", "BR", "CA", "DE", "ES", "FR", "JP", "NZ"];
const STATUSES: [&str; 4] = ["open", "paid", "shipped", "returned"];

/// A kind of document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// Small and flat; `_id` is a long.
    Customer,
    /// Nested, with arrays; `_id` is an ObjectId.
    Order,
    /// Small, with a TTL; `_id` is a string.
    Session,
    /// Small, of numbers; `_id` is an int.
    Reading,
    /// Under a validator; `_id` is a document.
    Contact,
    /// About 2 KB.
    Note,
    /// Of a collection with a collation; `_id` is a string.
    Product,
    /// 64 KB.
    File,
}

impl Shape {
    /// The document with a number.
    pub(super) fn document(self, seed: u64, number: u64) -> Document {
        let mut rng = StdRng::seed_from_u64(
            seed ^ (self as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ number.rotate_left(32),
        );
        self.random_document(self.id(seed, number), number, &mut rng)
    }

    /// The `_id` of the document with a number.
    pub(super) fn id(self, seed: u64, number: u64) -> Bson {
        match self {
            Self::Customer | Self::Note => Bson::Int64(signed(number)),
            Self::Order => order_id(seed, number).into(),
            Self::Session => format!("session-{number:08}").into(),
            Self::Reading => Bson::Int32(i32::try_from(number).unwrap_or(i32::MAX)),
            Self::Contact => doc! {
                "region": COUNTRIES[index(number, COUNTRIES.len())], "number": signed(number),
            }
            .into(),
            Self::Product => format!("{}-{number}", WORDS[index(number, WORDS.len())]).into(),
            Self::File => {
                Binary { subtype: BinarySubtype::Generic, bytes: number.to_be_bytes().to_vec() }
                    .into()
            }
        }
    }

    /// A document with a given `_id`; what must be unique in the collection comes from `number`.
    pub(super) fn random_document(self, id: Bson, number: u64, rng: &mut StdRng) -> Document {
        match self {
            Self::Customer => {
                let mut customer = doc! {
                    "_id": id, "email": email(number), "name": words(rng, 2),
                    "country": country(rng), "visits": rng.random_range(0..100),
                    "address": {
                        "city": word(rng), "postcode": rng.random_range(10_000..99_999),
                    }, "since": time(rng),
                };
                // Some are without it: the index on it is sparse.
                if rng.random_bool(0.3) {
                    customer.insert("referrer", signed(rng.random_range(0..number + 1)));
                }
                customer
            }
            Self::Order => {
                let items: Vec<Document> = (0..rng.random_range(1..5)).map(|_| item(rng)).collect();
                let total: f64 = items.iter().filter_map(|item| item.get_f64("price").ok()).sum();
                doc! {
                    "_id": id, "customer": signed(rng.random_range(0..1_000)),
                    "status": status(rng), "placed_at": time(rng), "items": items,
                    "items_count": rng.random_range(1..5), "total": total, "history": ["created"],
                    "delivery": {
                        "address": { "street": words(rng, 2), "city": word(rng) },
                        "notes": words(rng, 4),
                    },
                }
            }
            Self::Session => doc! {
                "_id": id, "user": signed(rng.random_range(0..1_000)),
                "token": format!("{:016x}", rng.next_u64()),
                "expires_at": DateTime::from_millis(
                    FAR_FUTURE_MS + rng.random_range(0..1_000_000_000)
                ),
            },
            Self::Reading => doc! {
                "_id": id, "sensor": rng.random_range(0..200), "at": time(rng),
                "value": rng.random_range(-40.0..60.0), "count": signed(number),
            },
            Self::Contact => doc! {
                "_id": id, "name": words(rng, 2), "phone": format!(
                    "+43{}", rng.random_range(1_000_000..9_999_999),
                ), "age": rng.random_range(18..99),
                "tags": [word(rng), word(rng)],
            },
            Self::Note => {
                doc! { "_id": id, "author": word(rng), "text": words(rng, 300), "revision": 1 }
            }
            Self::Product => doc! {
                "_id": id, "title": words(rng, 3), "description": words(rng, 12),
                "price": rng.random_range(1.0..500.0),
                "location": {
                    "type": "Point",
                    "coordinates": [rng.random_range(-170.0..170.0), rng.random_range(-80.0..80.0)],
                },
                "attributes": { "colour": word(rng), "weight": rng.random_range(1..5_000) },
            },
            Self::File => {
                let mut bytes = vec![0; 64 << 10];
                rng.fill_bytes(&mut bytes);
                doc! {
                    "_id": id, "name": words(rng, 2),
                    "data": Binary { subtype: BinarySubtype::Generic, bytes },
                }
            }
        }
    }
}

/// The `_id` of an order with a number; workers of the writer take numbers of their own.
pub(super) fn order_id(seed: u64, number: u64) -> ObjectId {
    let mut bytes = [0; 12];
    bytes[..4].copy_from_slice(&seed.to_be_bytes()[4..]);
    bytes[4..].copy_from_slice(&number.to_be_bytes());
    ObjectId::from_bytes(bytes)
}

/// The unique address of the customer with a number.
pub(super) fn email(number: u64) -> String {
    format!("customer{number}@example.net")
}

/// A number as BSON has them.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn item(rng: &mut StdRng) -> Document {
    doc! {
        "sku": format!("{}-{}", word(rng), rng.random_range(0..50)),
        "quantity": rng.random_range(1..9), "price": rng.random_range(1.0..90.0),
    }
}

pub(super) fn word(rng: &mut StdRng) -> &'static str {
    WORDS[rng.random_range(0..WORDS.len())]
}

pub(super) fn words(rng: &mut StdRng, count: usize) -> String {
    (0..count).map(|_| word(rng)).collect::<Vec<_>>().join(" ")
}

pub(super) fn status(rng: &mut StdRng) -> &'static str {
    STATUSES[rng.random_range(0..STATUSES.len())]
}

fn country(rng: &mut StdRng) -> &'static str {
    COUNTRIES[rng.random_range(0..COUNTRIES.len())]
}

fn time(rng: &mut StdRng) -> DateTime {
    DateTime::from_millis(EPOCH_MS + rng.random_range(0..150_000_000_000))
}

fn index(number: u64, length: usize) -> usize {
    // The remainder is below `length`, which is a usize.
    usize::try_from(number % length as u64).unwrap_or_default()
}
