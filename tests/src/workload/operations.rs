//! The operations of one worker.

use mongodb::bson::{Bson, DateTime, Document, doc};
use mongodb::error::Result;
use mongodb::options::{CollectionOptions, WriteConcern};
use mongodb::{Client, ClientSession, Collection};
use rand::Rng as _;
use rand::rngs::StdRng;

use super::shapes::{Shape, email, item, order_id, signed, status, word, words};
use super::writer::{LedgerEntry, WriterOptions};

/// New numbers of a worker begin far above those that were laid, and far from other workers'.
const NUMBERS_A_WORKER: u64 = 1 << 32;
/// Numbers of writers with other seeds are this far apart; as many seeds are told apart as leave
/// the number positive as a long.
const NUMBERS_A_SEED: u64 = 1 << 48;
const SEEDS: u64 = 1 << 14;

/// How many documents were laid.
#[derive(Debug, Clone, Copy)]
pub(super) struct Data {
    customers: u64,
    orders: u64,
    sessions: u64,
    readings: u64,
    contacts: u64,
    notes: u64,
    seed: u64,
}

impl Data {
    pub(super) async fn survey(client: &Client) -> Result<Self> {
        let count = async |db: &str, name: &str| {
            client.database(db).collection::<Document>(name).estimated_document_count().await
        };
        // The seed is in the orders' ids.
        let order = client
            .database("shop")
            .collection::<Document>("orders")
            .find_one(doc! {})
            .sort(doc! { "_id": 1 })
            .await?;
        let id = order
            .as_ref()
            .and_then(|order| order.get_object_id("_id").ok())
            .map_or([0; 12], |id| id.bytes());
        Ok(Self {
            customers: count("shop", "customers").await?,
            orders: count("shop", "orders").await?,
            sessions: count("shop", "sessions").await?,
            readings: count("telemetry", "readings").await?,
            contacts: count("crm", "contacts").await?,
            notes: count("crm", "notes").await?,
            seed: u64::from(u32::from_be_bytes([id[0], id[1], id[2], id[3]])),
        })
    }
}

/// What an operation did.
pub(super) struct Done {
    pub(super) kind: &'static str,
    pub(super) note: Option<LedgerEntry>,
}

/// One worker's hand in the data.
pub(super) struct Hand {
    seed: u64,
    worker: u32,
    workers: u64,
    transactions: bool,
    ddl: bool,
    data: Data,
    rng: StdRng,
    /// Numbers of the orders it has inserted.
    inserted: u64,
    /// Numbers of the notes it has tried to leave; each is tried once.
    notes: u64,
    /// Collections it has created for a while.
    short_lived: u64,
}

impl Hand {
    pub(super) fn new(worker: u32, options: &WriterOptions, data: Data, rng: StdRng) -> Self {
        let ddl = options.ddl && worker == 0;
        let workers = u64::from(options.workers.max(1));
        let seed = options.seed % SEEDS;
        Self {
            seed,
            worker,
            workers,
            transactions: options.transactions,
            ddl,
            data,
            rng,
            inserted: 0,
            notes: 0,
            short_lived: 0,
        }
    }

    /// Does one operation, of a kind chosen at random.
    pub(super) async fn operate(&mut self, client: &Client) -> Result<Done> {
        let mut note = None;
        let kind = match self.rng.random_range(0..100) {
            0..15 => self.insert(client).await?,
            15..35 => self.update(client).await?,
            35..42 => self.update_with_pipeline(client).await?,
            42..50 => self.replace(client).await?,
            50..58 => self.delete(client).await?,
            58..64 => self.upsert(client).await?,
            64..69 => self.insert_many(client).await?,
            69..73 => self.change_many(client).await?,
            73..77 => self.change_the_type_of_an_id(client).await?,
            77..82 => self.append_to_the_log(client).await?,
            82..86 => self.swap_unique_values(client).await?,
            86..91 if self.transactions => {
                note = self.transaction(client).await?;
                "transaction"
            }
            91..93 if self.ddl => self.ddl(client).await?,
            _ => {
                note = self.note(client).await?;
                "note"
            }
        };
        Ok(Done { kind, note })
    }

    /// Leaves a note in the ledger, acknowledged by a majority.
    pub(super) async fn note(&mut self, client: &Client) -> Result<Option<LedgerEntry>> {
        let entry = self.next_note();
        let majority = CollectionOptions::builder().write_concern(WriteConcern::majority()).build();
        let ledger = client.database("app").collection_with_options("ledger", majority);
        ledger.insert_one(doc! { "_id": entry.id(), "text": words(&mut self.rng, 3) }).await?;
        Ok(Some(entry))
    }

    fn next_note(&mut self) -> LedgerEntry {
        self.notes += 1;
        LedgerEntry { seed: self.seed, worker: self.worker, number: self.notes }
    }

    fn next_number(&mut self) -> u64 {
        self.inserted += 1;
        self.first_number() + self.inserted
    }

    fn first_number(&self) -> u64 {
        NUMBERS_A_SEED * self.seed + NUMBERS_A_WORKER * (u64::from(self.worker) + 1)
    }

    fn any(&mut self, count: u64) -> u64 {
        self.rng.random_range(0..count.max(1))
    }

    async fn insert(&mut self, client: &Client) -> Result<&'static str> {
        let number = self.next_number();
        let order = Shape::Order.random_document(
            order_id(self.data.seed, number).into(),
            number,
            &mut self.rng,
        );
        collection(client, "shop", "orders").insert_one(order).await?;
        Ok("insert")
    }

    async fn insert_many(&mut self, client: &Client) -> Result<&'static str> {
        let count = self.rng.random_range(2..20);
        let mut sessions = Vec::new();
        for _ in 0..count {
            let number = self.next_number();
            sessions.push(Shape::Session.random_document(
                format!("session-{number}").into(),
                number,
                &mut self.rng,
            ));
        }
        collection(client, "shop", "sessions").insert_many(sessions).ordered(false).await?;
        Ok("insert_many")
    }

    async fn update(&mut self, client: &Client) -> Result<&'static str> {
        let customers = collection(client, "shop", "customers");
        let orders = collection(client, "shop", "orders");
        let customer = doc! { "_id": signed(self.any(self.data.customers)) };
        let order = self.any_order();
        match self.rng.random_range(0..8) {
            0 => {
                let set = doc! {
                    "$set": { "address.city": word(&mut self.rng), "address.geo.lat": 48.2 },
                    "$inc": { "visits": 1 },
                };
                customers.update_one(customer, set).await?;
            }
            1 => {
                customers
                    .update_one(
                        customer,
                        doc! { "$unset": { "referrer": "" }, "$inc": { "visits": 1_i64 } },
                    )
                    .await?;
            }
            2 => {
                customers
                    .update_one(
                        customer,
                        doc! { "$rename": { "since": "member_since" }, "$mul": { "visits": 1.5 } },
                    )
                    .await?;
            }
            3 => {
                let push = doc! {
                    "$push": {
                        "history": {
                            "$each": [word(&mut self.rng), status(&mut self.rng)], "$slice": -4,
                        }
                    }
                };
                orders.update_one(order, push).await?;
            }
            4 => {
                let push = doc! {
                    "$push": { "items": { "$each": [item(&mut self.rng)], "$slice": 3 } },
                    "$inc": { "items_count": 1 },
                };
                orders.update_one(order, push).await?;
            }
            5 => {
                let set = doc! {
                    "$set": {
                        "items.0.quantity": self.rng.random_range(1..9),
                        "status": status(&mut self.rng),
                    }
                };
                orders.update_one(order, set).await?;
            }
            6 => {
                orders
                    .update_one(
                        order,
                        doc! {
                            "$pop": { "items": -1 },
                            "$set": { "delivery.address": { "city": word(&mut self.rng) } },
                        },
                    )
                    .await?;
            }
            _ => {
                let id = signed(self.any(self.data.notes));
                let set = doc! {
                    "$set": { "text": words(&mut self.rng, 250) }, "$inc": { "revision": 1 },
                };
                collection(client, "crm", "notes").update_one(doc! { "_id": id }, set).await?;
            }
        }
        Ok("update")
    }

    async fn update_with_pipeline(&mut self, client: &Client) -> Result<&'static str> {
        let order = self.any_order();
        let pipeline = match self.rng.random_range(0..4) {
            0 => vec![doc! {
                "$set": {
                    "total": { "$sum": "$items.price" }, "items_count": { "$size": "$items" },
                }
            }],
            1 => vec![doc! {
                "$set": {
                    "items": { "$slice": ["$items", 1] },
                    "history": { "$concatArrays": ["$history", ["cut"]] },
                }
            }],
            // A field whose name holds a dot, beside what the dotted path would mean.
            2 => vec![doc! {
                "$replaceWith": {
                    "$setField": {
                        "field": "delivery.address", "input": "$$ROOT",
                        "value": self.rng.random_range(0..9),
                    }
                }
            }],
            _ => vec![
                doc! { "$unset": ["delivery.notes", "placed_at"] },
                doc! { "$set": { "changed": "$$NOW" } },
            ],
        };
        collection(client, "shop", "orders").update_one(order, pipeline).await?;
        Ok("pipeline")
    }

    async fn replace(&mut self, client: &Client) -> Result<&'static str> {
        let number = self.any(self.data.sessions);
        let id = Shape::Session.id(self.data.seed, number);
        let mut session = Shape::Session.random_document(id.clone(), number, &mut self.rng);
        if self.rng.random_bool(0.5) {
            session.remove("user");
            session.insert("device", word(&mut self.rng));
        }
        collection(client, "shop", "sessions").replace_one(doc! { "_id": id }, session).await?;
        Ok("replace")
    }

    async fn delete(&mut self, client: &Client) -> Result<&'static str> {
        if self.rng.random_bool(0.5) {
            let id = Shape::Session.id(self.data.seed, self.any(self.data.sessions));
            collection(client, "shop", "sessions").delete_one(doc! { "_id": id }).await?;
        } else {
            let id = Shape::Contact.id(self.data.seed, self.any(self.data.contacts));
            collection(client, "crm", "contacts").delete_one(doc! { "_id": id }).await?;
        }
        Ok("delete")
    }

    async fn upsert(&mut self, client: &Client) -> Result<&'static str> {
        let number = self.any(self.data.sessions * 2);
        let id = Shape::Session.id(self.data.seed, number);
        let mut fields = Shape::Session.random_document(id.clone(), number, &mut self.rng);
        fields.remove("_id");
        collection(client, "shop", "sessions")
            .update_one(doc! { "_id": id }, doc! { "$set": fields })
            .upsert(true)
            .await?;
        Ok("upsert")
    }

    async fn change_many(&mut self, client: &Client) -> Result<&'static str> {
        let readings = collection(client, "telemetry", "readings");
        let from = i32::try_from(self.any(self.data.readings)).unwrap_or_default();
        let range = doc! { "_id": { "$gte": from, "$lt": from + 8 } };
        if self.rng.random_bool(0.7) {
            readings
                .update_many(range, doc! { "$inc": { "count": 1 }, "$set": { "checked": true } })
                .await?;
        } else {
            readings.delete_many(doc! { "_id": { "$gte": from, "$lt": from + 3 } }).await?;
        }
        Ok("many")
    }

    /// The same number as int, long and double is the same `_id` to the server, and other bytes.
    async fn change_the_type_of_an_id(&mut self, client: &Client) -> Result<&'static str> {
        let readings = collection(client, "telemetry", "readings");
        let number = self.own(self.data.readings);
        let id = i32::try_from(number).unwrap_or_default();
        readings.delete_one(doc! { "_id": id }).await?;
        let typed = match self.rng.random_range(0..3) {
            0 => Bson::Int32(id),
            1 => Bson::Int64(i64::from(id)),
            _ => Bson::Double(f64::from(id)),
        };
        readings.insert_one(Shape::Reading.random_document(typed, number, &mut self.rng)).await?;
        Ok("id_type")
    }

    async fn append_to_the_log(&mut self, client: &Client) -> Result<&'static str> {
        let number = self.next_number();
        let line =
            doc! { "_id": signed(number), "line": signed(number), "text": words(&mut self.rng, 5) };
        collection(client, "telemetry", "log").insert_one(line).await?;
        Ok("log")
    }

    /// Two of this worker's own customers exchange their unique addresses.
    async fn swap_unique_values(&mut self, client: &Client) -> Result<&'static str> {
        let customers = collection(client, "shop", "customers");
        let (one, two) = (self.own(self.data.customers), self.own(self.data.customers));
        let address = async |number: u64| -> Result<Option<String>> {
            let customer = customers.find_one(doc! { "_id": signed(number) }).await?;
            Ok(customer.and_then(|customer| customer.get_str("email").map(str::to_owned).ok()))
        };
        let (Some(first), Some(second)) = (address(one).await?, address(two).await?) else {
            return Ok("swap");
        };
        if one == two {
            return Ok("swap");
        }
        let meanwhile = format!("moving-{}", email(one));
        for (number, value) in [(one, &meanwhile), (two, &first), (one, &second)] {
            customers
                .update_one(doc! { "_id": signed(number) }, doc! { "$set": { "email": value } })
                .await?;
        }
        Ok("swap")
    }

    /// A number that no other worker uses for this purpose.
    fn own(&mut self, count: u64) -> u64 {
        let share = (count / self.workers).max(1);
        self.rng.random_range(0..share) * self.workers + u64::from(self.worker)
    }

    async fn transaction(&mut self, client: &Client) -> Result<Option<LedgerEntry>> {
        let entry = self.next_note();
        let number = self.next_number();
        let order = Shape::Order.random_document(
            order_id(self.data.seed, number).into(),
            number,
            &mut self.rng,
        );
        let customer = doc! { "_id": signed(self.any(self.data.customers)) };
        let contact = Shape::Contact.id(self.data.seed, self.any(self.data.contacts));
        let mut session = client.start_session().await?;
        session.start_transaction().write_concern(WriteConcern::majority()).await?;
        let all = async |session: &mut ClientSession| -> Result<()> {
            // A transaction takes no write concern on its operations.
            let plain = |db: &str, name: &str| client.database(db).collection::<Document>(name);
            plain("shop", "orders").insert_one(order).session(&mut *session).await?;
            plain("shop", "customers")
                .update_one(customer, doc! { "$inc": { "visits": 1 } })
                .session(&mut *session)
                .await?;
            plain("crm", "contacts")
                .delete_one(doc! { "_id": contact })
                .session(&mut *session)
                .await?;
            plain("app", "ledger")
                .insert_one(doc! { "_id": entry.id(), "in_transaction": true })
                .session(&mut *session)
                .await?;
            Ok(())
        };
        if let Err(error) = all(&mut session).await {
            let _ = session.abort_transaction().await;
            return Err(error);
        }
        if self.rng.random_bool(0.1) {
            session.abort_transaction().await?;
            return Ok(None);
        }
        session.commit_transaction().await?;
        Ok(Some(entry))
    }

    async fn ddl(&mut self, client: &Client) -> Result<&'static str> {
        let database = client.database("app");
        self.short_lived += 1;
        let name = format!("short_lived_{}", self.short_lived);
        let documents = (0..20).map(|id| {
            doc! {
                "_id": id, "text": words(&mut self.rng, 3), "at": DateTime::from_millis(id),
            }
        });
        collection(client, "app", &name).insert_many(documents.collect::<Vec<_>>()).await?;
        let index =
            doc! { "createIndexes": &name, "indexes": [{ "key": { "text": 1 }, "name": "text" }] };
        database.run_command(index).await?;
        match self.short_lived % 5 {
            0 => database.collection::<Document>(&name).drop().await?,
            1 => {
                let rename = doc! {
                    "renameCollection": format!("app.{name}"), "to": "app.renamed",
                    "dropTarget": true,
                };
                client.database("admin").run_command(rename).await?;
            }
            2 => {
                database.run_command(doc! { "dropIndexes": &name, "index": "text" }).await?;
            }
            3 => {
                database
                    .run_command(
                        doc! { "collMod": &name, "validator": { "text": { "$exists": true } } },
                    )
                    .await?;
            }
            _ => {
                client
                    .database("app_short_lived")
                    .run_command(doc! { "insert": &name, "documents": [{ "_id": 1 }] })
                    .await?;
                client.database("app_short_lived").drop().await?;
            }
        }
        Ok("ddl")
    }

    /// One of the orders that were laid, or that this worker has inserted.
    fn any_order(&mut self) -> Document {
        let own = self.rng.random_bool(0.2) && self.inserted > 0;
        let number = if own {
            self.first_number() + self.rng.random_range(1..=self.inserted)
        } else {
            self.any(self.data.orders)
        };
        doc! { "_id": order_id(self.data.seed, number) }
    }
}

fn collection(client: &Client, db: &str, name: &str) -> Collection<Document> {
    let quick = CollectionOptions::builder().write_concern(WriteConcern::nodes(1)).build();
    client.database(db).collection_with_options(name, quick)
}
