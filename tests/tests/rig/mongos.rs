//! What a client sees of a sharded cluster through its router: `mongos`, or the rig's stand-in for
//! it.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use mongodb::bson::{Bson, Document, Timestamp, doc};
use mongodb::options::{ClientOptions, Credential, FullDocumentType};
use mongodb::{Client, Collection};
use rig::{Auth, ClusterOptions, Options, ShardedCluster, User};

/// Small enough for idle shards to be no matter of seconds.
fn options(shards: usize) -> ClusterOptions {
    let shard = Options { noop_interval_seconds: Some(1), ..Options::default() };
    ClusterOptions { shard, ..ClusterOptions::shards(shards) }
}

/// Three shards; `hashed` lies on all of them, `ranged` too, cut at 100 and 200, `plain` on the
/// third.
async fn cluster() -> Result<(ShardedCluster, Client)> {
    let cluster = ShardedCluster::start(options(3)).await?;
    cluster.create_database("shop", 2).await?;
    cluster.shard_collection("shop.hashed", doc! { "_id": "hashed" }, Some(6)).await?;
    cluster.shard_collection("shop.ranged", doc! { "a": 1 }, None).await?;
    cluster.deal_out("shop.ranged", &[doc! { "a": 100 }, doc! { "a": 200 }]).await?;
    let client = cluster.client().await?;
    Ok((cluster, client))
}

/// One event: its token, its time and what it reports.
#[derive(Debug, Clone, PartialEq)]
struct Seen {
    token: Document,
    time: Timestamp,
    what: String,
}

/// Opens a stream over the whole cluster as a tool does that speaks raw commands.
async fn open(client: &Client, begin: Document) -> Result<(i64, Document)> {
    let mut options =
        doc! { "allChangesForCluster": true, "showExpandedEvents": true, "showSystemEvents": true };
    options.extend(begin);
    let pipeline = vec![doc! { "$changeStream": options }, doc! { "$match": { "ns.db": "shop" } }];
    let open = doc! {
        "aggregate": 1, "pipeline": pipeline, "cursor": { "batchSize": 0 },
        "readConcern": { "level": "majority" },
    };
    let reply = client.database("admin").run_command(open).await?;
    let cursor = reply.get_document("cursor")?;
    ensure!(cursor.get_array("firstBatch")?.is_empty());
    Ok((
        cursor.get_i64("id")?,
        cursor.get_document("postBatchResumeToken").cloned().unwrap_or_default(),
    ))
}

async fn more(client: &Client, cursor: i64, size: i32) -> Result<(Vec<Seen>, Document)> {
    let more = doc! {
        "getMore": cursor, "collection": "$cmd.aggregate", "batchSize": size, "maxTimeMS": 300,
    };
    let reply = client.database("admin").run_command(more).await?;
    let cursor = reply.get_document("cursor")?;
    let events = cursor.get_array("nextBatch")?.iter().map(|event| {
        let event = event.as_document().context("an event")?;
        let key = event
            .get_document("documentKey")
            .map(|key| format!(" {:?}", key.get("_id")))
            .unwrap_or_default();
        Ok(Seen {
            token: event.get_document("_id")?.clone(),
            time: event.get_timestamp("clusterTime")?,
            what: format!(
                "{} {}{key}",
                event.get_str("operationType")?,
                event.get_document("ns")?.get_str("coll")?
            ),
        })
    });
    Ok((events.collect::<Result<_>>()?, cursor.get_document("postBatchResumeToken")?.clone()))
}

fn data(token: &Document) -> Result<&str> {
    Ok(token.get_str("_data")?)
}

/// Reads until so many events have come.
async fn read(client: &Client, cursor: i64, count: usize, size: i32) -> Result<Vec<Seen>> {
    let mut events: Vec<Seen> = Vec::new();
    let mut last = String::new();
    for _ in 0..200 {
        if events.len() >= count {
            break;
        }
        let (batch, token) = more(client, cursor, size).await?;
        ensure!(
            batch.len() <= usize::try_from(size)?,
            "{} events in a batch of {size}",
            batch.len()
        );
        events.extend(batch);
        let token = data(&token)?.to_owned();
        ensure!(token >= last, "the token went back from {last} to {token}");
        ensure!(
            events.iter().all(|event| data(&event.token).is_ok_and(|own| own <= token.as_str())),
            "behind its token: {token}"
        );
        last = token;
    }
    ensure!(events.windows(2).all(
        |two| two[0].time <= two[1].time && data(&two[0].token).ok() < data(&two[1].token).ok()
    ));
    Ok(events)
}

async fn streams(cluster: &ShardedCluster, client: &Client) -> Result<()> {
    let (id, begin) = open(client, doc! {}).await?;
    let (hashed, ranged): (Collection<Document>, Collection<Document>) = (
        client.database("shop").collection("hashed"),
        client.database("shop").collection("ranged"),
    );
    hashed.insert_many((0..60).map(|n| doc! { "_id": n })).await?;
    for n in 0..30 {
        ranged.insert_one(doc! { "_id": n, "a": n * 10 }).await?;
    }
    // From the first shard to the third: a delete and an insert, in one transaction.
    ranged.update_one(doc! { "a": 50 }, doc! { "$set": { "a": 250 } }).await?;
    ranged.delete_many(doc! {}).await?;
    client
        .database("shop")
        .collection::<Document>("plain")
        .insert_one(doc! { "_id": "only" })
        .await?;
    let moved = 2;
    let count = 60 + 30 + moved + 30 + 2;
    let events = read(client, id, count, 17).await?;
    let kinds = |kind: &str| events.iter().filter(|event| event.what.starts_with(kind)).count();
    ensure!(events.len() == count, "{} events, not {count}", events.len());
    assert_eq!(
        (
            kinds("insert hashed"),
            kinds("insert ranged"),
            kinds("delete ranged"),
            kinds("insert plain")
        ),
        (60, 31, 31, 1)
    );
    // From anywhere, nothing is reported twice and nothing is left out.
    let token = |place: usize| events[place].token.clone();
    for (begin, from) in [
        (doc! { "resumeAfter": begin }, 0),
        (doc! { "resumeAfter": token(0) }, 1),
        (doc! { "startAfter": token(40) }, 41),
        (doc! { "resumeAfter": token(count - 2) }, count - 1),
    ] {
        let (id, _) = open(client, begin.clone()).await?;
        let again = read(client, id, count - from, 1_000).await?;
        ensure!(again == events[from..], "{begin}: {} events, not {}", again.len(), count - from);
    }
    let (id, _) = open(client, doc! { "startAtOperationTime": events[70].time }).await?;
    let first = events.iter().position(|event| event.time == events[70].time).context("itself")?;
    ensure!(read(client, id, count - first, 1_000).await? == events[first..]);
    // Idle shards do not hold the token up: a note reaches them all.
    let note = cluster
        .admin(doc! { "appendOplogNote": 1, "data": { "msg": "now" } })
        .await?
        .get_timestamp("operationTime")?;
    let mark = format!("82{:08X}{:08X}", note.time, note.increment);
    let mut reached = String::new();
    for _ in 0..60 {
        reached = data(&more(client, id, 10).await?.1)?.to_owned();
        if reached >= mark {
            break;
        }
    }
    ensure!(reached >= mark, "{reached} is before {mark}");
    Ok(())
}

/// The driver's own stream over one collection, through the election of a shard.
async fn a_watched_collection(cluster: &ShardedCluster, client: &Client) -> Result<()> {
    let ranged: Collection<Document> = client.database("shop").collection("ranged");
    let mut stream = ranged.watch().full_document(FullDocumentType::UpdateLookup).await?;
    ranged.insert_one(doc! { "_id": "x", "a": 150 }).await?;
    ranged.update_one(doc! { "a": 150 }, doc! { "$set": { "b": 1 } }).await?;
    cluster.shards()[1].step_down(1).await?;
    cluster.shards()[1].primary().await?;
    ranged.delete_one(doc! { "a": 150 }).await?;
    let mut seen = Vec::new();
    let began = std::time::Instant::now();
    while seen.len() < 3 && began.elapsed() < Duration::from_secs(60) {
        if let Some(event) = stream.next_if_any().await? {
            seen.push((format!("{:?}", event.operation_type), event.full_document));
        }
    }
    let whole = |b: Option<i32>| {
        let mut document = doc! { "_id": "x", "a": 150 };
        document.extend(b.map(|b| ("b".to_owned(), Bson::from(b))));
        Some(document)
    };
    // The lookup may come after the delete.
    assert_eq!(seen.len(), 3, "{seen:?}");
    assert_eq!((seen[0].0.as_str(), &seen[0].1), ("Insert", &whole(None)));
    assert_eq!((seen[1].0.as_str(), seen[2].0.as_str()), ("Update", "Delete"));
    // A collection that is dropped ends its stream, once for each shard that dropped it; behind the
    // last end another one begins.
    ranged.drop().await?;
    ranged.insert_one(doc! { "_id": "new" }).await?;
    let mut ends = 0;
    while began.elapsed() < Duration::from_secs(60) {
        match stream.next_if_any().await? {
            Some(event) if format!("{:?}", event.operation_type) == "Insert" => {
                ensure!(ends > 0, "the stream goes on after the collection was dropped");
                return Ok(());
            }
            Some(event) if format!("{:?}", event.operation_type) == "Invalidate" => {
                ends += 1;
                stream = ranged.watch().start_after(event.id).await?;
            }
            _ => {}
        }
    }
    anyhow::bail!("nothing was told behind the end")
}

/// A sharded collection is not capped, not even on one of its shards.
async fn only_an_unsharded_collection_is_capped(client: &Client) -> Result<()> {
    let shop = client.database("shop");
    let refused = shop.run_command(doc! { "convertToCapped": "hashed", "size": 4096 }).await;
    let code = refused.err().and_then(|error| match &*error.kind {
        mongodb::error::ErrorKind::Command(error) => Some(error.code),
        _ => None,
    });
    assert_eq!(code, Some(20));
    shop.run_command(doc! { "create": "limited" }).await?;
    shop.run_command(doc! { "convertToCapped": "limited", "size": 4096 }).await?;
    let listed = shop
        .run_command(doc! { "listCollections": 1, "filter": { "options.capped": true } })
        .await?;
    assert_eq!(listed.get_document("cursor")?.get_array("firstBatch")?.len(), 1);
    Ok(())
}

/// A shard's time that no client of the router has seen: a ping that reports it is enough for what
/// is read as of it.
async fn a_ping_tells_the_router_the_time(cluster: &ShardedCluster, client: &Client) -> Result<()> {
    let shard = cluster.shards()[0].client().await?;
    let mut session = shard.start_session().await?;
    for _ in 0..3 {
        let note = doc! { "appendOplogNote": 1, "data": { "msg": "unknown to the router" } };
        shard.database("admin").run_command(note).session(&mut session).await?;
    }
    let told = session.cluster_time().context("a time")?.clone();
    let mut telling = client.start_session().await?;
    telling.advance_cluster_time(&told);
    let pong =
        client.database("admin").run_command(doc! { "ping": 1 }).session(&mut telling).await?;
    let known = pong.get_document("$clusterTime")?.get_timestamp("clusterTime")?;
    let time = session.operation_time().context("a time")?;
    ensure!(known >= time, "the router knows of {known}, and was told of {time}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn change_streams_are_one_over_all_shards() -> Result<()> {
    let (cluster, client) = cluster().await?;
    streams(&cluster, &client).await?;
    a_watched_collection(&cluster, &client).await?;
    a_ping_tells_the_router_the_time(&cluster, &client).await?;
    only_an_unsharded_collection_is_capped(&client).await
}

/// With access control users log in through the router, are made through it, and may do what their
/// roles say.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_log_in_through_the_router() -> Result<()> {
    let reader = User::new("reader", "reading", &["read"]);
    let cluster = ShardedCluster::start(options(2).auth(Auth { users: vec![reader] })).await?;
    cluster.shard_collection("shop.hashed", doc! { "_id": "hashed" }, Some(4)).await?;
    let root = cluster.client().await?;
    let of_root: Collection<Document> = root.database("shop").collection("hashed");
    of_root.insert_many((0..40).map(|n| doc! { "_id": n })).await?;
    assert_eq!(of_root.count_documents(doc! {}).await?, 40);
    let code = |error: &mongodb::error::Error| match &*error.kind {
        mongodb::error::ErrorKind::Command(error) => error.code,
        _ => 0,
    };

    let as_user = async |name: &str, password: &str| {
        let mut options = ClientOptions::parse(cluster.uri()).await?;
        let credential =
            Credential::builder().username(name.to_owned()).password(password.to_owned());
        options.credential = Some(credential.source("admin".to_owned()).build());
        anyhow::Ok(Client::with_options(options)?)
    };
    let nobody = Client::with_uri_str(cluster.uri()).await?;
    let refused = nobody.database("shop").collection::<Document>("hashed").find_one(doc! {}).await;
    assert_eq!(refused.err().map(|error| code(&error)), Some(13));
    let wrong = as_user("reader", "writing")
        .await?
        .database("shop")
        .collection::<Document>("hashed")
        .find_one(doc! {})
        .await;
    ensure!(wrong.is_err(), "a wrong password is taken");

    // One that is made through the router is known on the config server alone.
    let role = doc! { "role": "readWrite", "db": "shop" };
    let create = doc! { "createUser": "app", "pwd": "apps", "roles": [role] };
    root.database("admin").run_command(create).await?;
    let app = as_user("app", "apps").await?;
    let of_app: Collection<Document> = app.database("shop").collection("hashed");
    of_app.insert_one(doc! { "_id": 100 }).await?;
    assert_eq!(of_app.count_documents(doc! {}).await?, 41);
    let elsewhere = app.database("other").collection("c").insert_one(doc! { "_id": 1 }).await;
    assert_eq!(elsewhere.err().map(|error| code(&error)), Some(13));
    let who = app.database("admin").run_command(doc! { "connectionStatus": 1 }).await?;
    assert_eq!(who.get_document("authInfo")?.get_array("authenticatedUsers")?.len(), 1);
    let users = app
        .database("admin")
        .run_command(doc! { "createUser": "x", "pwd": "x", "roles": [] })
        .await;
    assert_eq!(users.err().map(|error| code(&error)), Some(13));

    // A write block stops it, and not those who may bypass it.
    cluster.admin(doc! { "setUserWriteBlockMode": 1, "global": true }).await?;
    let blocked = of_app.update_many(doc! {}, doc! { "$set": { "x": 1 } }).await;
    ensure!(blocked.is_err(), "a write passes the block");
    of_root.update_many(doc! {}, doc! { "$set": { "y": 1 } }).await?;
    for shard in cluster.shards() {
        let status =
            shard.client().await?.database("admin").run_command(doc! { "serverStatus": 1 }).await?;
        assert_eq!(status.get_document("repl")?.get_i32("userWriteBlockMode")?, 2);
    }
    ensure!(
        !cluster.admin(doc! { "serverStatus": 1 }).await?.contains_key("repl"),
        "a mongos is in no replica set"
    );
    cluster.admin(doc! { "setUserWriteBlockMode": 1, "global": false }).await?;
    of_app.update_many(doc! {}, doc! { "$set": { "x": 1 } }).await?;
    Ok(())
}
