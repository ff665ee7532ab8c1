//! What the engine knows of a sharded cluster, against a real one: shards, ownership, versions,
//! moves, the balancer.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use daemon::engine::source::balancer::{self, Balancer};
use daemon::engine::source::topology::{Change, Cluster};
use daemon::mongo::{Deployment, Side, append, command, connect};
use mongodb::bson::{
    Bson, Decimal128, Document, RawDocumentBuf, Timestamp, doc, oid::ObjectId, rawdoc,
};
use placement::element;
use rig::{ClusterOptions, ShardedCluster};
use schemas::namespace::Namespace;
use schemas::spec::ConnectionSpec;

/// Values of every type that a shard key can have, several times over.
fn values() -> Vec<Bson> {
    let decimal = |text: &str| Bson::Decimal128(text.parse::<Decimal128>().expect("a decimal"));
    let mut values: Vec<Bson> = vec![
        Bson::MinKey,
        Bson::Null,
        Bson::Undefined,
        f64::NAN.into(),
        decimal("NaN"),
        f64::INFINITY.into(),
        f64::NEG_INFINITY.into(),
        decimal("-Infinity"),
        decimal("1E+6000"),
        decimal("-3.999"),
        decimal("123456789012345678901234567890"),
        0.0.into(),
        (-0.0).into(),
        (-2.5).into(),
        1e300.into(),
        9_223_372_036_854_775_808.0.into(),
        (-9.3e18).into(),
        i64::MAX.into(),
        i64::MIN.into(),
        i32::MIN.into(),
        "".into(),
        "a\0b".into(),
        "Größe".into(),
        Bson::Symbol("symbol".into()),
        Bson::Document(doc! {}),
        Bson::Document(doc! { "a": { "b": [1, 2.5, "x"] }, "": Bson::Null }),
        Bson::Binary(mongodb::bson::Binary {
            subtype: mongodb::bson::spec::BinarySubtype::Generic,
            bytes: vec![1, 2, 3],
        }),
        Bson::Binary(mongodb::bson::Binary {
            subtype: mongodb::bson::spec::BinarySubtype::Uuid,
            bytes: vec![7; 16],
        }),
        ObjectId::from_bytes([9; 12]).into(),
        true.into(),
        false.into(),
        mongodb::bson::DateTime::from_millis(-5).into(),
        Timestamp { time: 7, increment: 1 }.into(),
        Bson::JavaScriptCode("f()".into()),
        Bson::JavaScriptCodeWithScope(mongodb::bson::JavaScriptCodeWithScope {
            code: "f()".into(),
            scope: doc! { "x": 1 },
        }),
        Bson::MaxKey,
    ];
    values.extend((-20..40).map(Bson::from));
    values.extend((0..40).map(|n| format!("text {n}").into()));
    values.extend((0..20).map(|n| (f64::from(n) / 7.0).into()));
    values
}

async fn hashes_are_the_servers(cluster: &ShardedCluster) -> Result<()> {
    let admin = cluster.shards()[0].client().await?.database("admin");
    // The command takes a text for a namespace, which has no NUL.
    for value in
        values().into_iter().filter(|value| value.as_str().is_none_or(|text| !text.contains('\0')))
    {
        let reply =
            admin.run_command(doc! { "_hashBSONElement": value.clone(), "seed": 0 }).await?;
        let document = RawDocumentBuf::try_from(&doc! { "v": value })?;
        let hash = placement::hash::hash(&element::field(&document, "v").context("a value")?);
        ensure!(
            reply.get_i64("out")? == hash,
            "the server hashes {document:?} to {reply}, not {hash}"
        );
    }
    Ok(())
}

async fn read(
    shard: &Deployment,
    namespace: &Namespace,
    versions: &RawDocumentBuf,
) -> Result<Vec<RawDocumentBuf>, mongodb::error::Error> {
    let mut find = command("find", &namespace.collection);
    for field in versions.iter().flatten() {
        append(&mut find, field.0.as_str(), field.1);
    }
    shard.collect(&namespace.db, find).await
}

/// Each shard, by its own filter, holds just what the chunk map says; together they hold everything
/// once.
async fn owners_are_the_shards(
    cluster: &Cluster,
    shards: &BTreeMap<String, Deployment>,
    namespace: &str,
    count: usize,
) -> Result<()> {
    let namespace: Namespace = namespace.parse().map_err(|error| anyhow::anyhow!("{error:?}"))?;
    let map = cluster.collections.get(&namespace).context("sharded")?;
    let mut all = 0;
    for shard in &cluster.shards {
        let versions = cluster.versions(&namespace, &shard.name).context("known")?;
        let documents = read(&shards[&shard.name.0], &namespace, &versions).await?;
        ensure!(!documents.is_empty(), "{} owns nothing of {namespace}", shard.name);
        all += documents.len();
        for document in documents {
            ensure!(
                map.owner(&document)? == shard.name.0,
                "{document:?} of {namespace} is {}'s",
                shard.name
            );
        }
    }
    ensure!(all == count, "the shards own {all} documents of {namespace}, not {count}");
    Ok(())
}

#[tokio::test]
async fn a_cluster_is_known_down_to_whose_each_document_is() -> Result<()> {
    let rig = ShardedCluster::start(ClusterOptions::shards(2)).await?;
    let spec = ConnectionSpec { uri: rig.uri(), username: None, password: None, tls: None };
    let router = connect(Side::Source, &spec, None, "orders-1").await?;
    rig.create_database("shop", 0).await?;
    rig.shard_collection("shop.hashed", doc! { "k": "hashed" }, Some(8)).await?;
    rig.shard_collection("shop.ranged", doc! { "k": 1 }, None).await?;
    rig.deal_out(
        "shop.ranged",
        &[doc! { "k": 1.5 }, doc! { "k": 20 }, doc! { "k": "text 2" }, doc! { "k": true }],
    )
    .await?;
    rig.shard_collection("shop.compound", doc! { "k": 1, "n.m": "hashed" }, None).await?;
    rig.deal_out(
        "shop.compound",
        &[doc! { "k": 10, "n.m": 0_i64 }, doc! { "k": "text 3", "n.m": Bson::MinKey }],
    )
    .await?;
    let documents: Vec<Document> = values()
        .into_iter()
        // A key of nothing but MaxKey is in no chunk.
        .filter(|value| *value != Bson::MaxKey)
        .enumerate()
        .map(|(n, k)| {
            doc! {
                "_id": i64::try_from(n).unwrap_or(0), "k": k, "n": { "m": format!("{n}") },
            }
        })
        .collect();
    let client = rig.client().await?;
    for name in ["hashed", "ranged", "compound", "plain"] {
        client.database("shop").collection::<Document>(name).insert_many(&documents).await?;
    }
    hashes_are_the_servers(&rig).await?;

    let first = Cluster::discover(&router).await?;
    assert!(first.id.is_some());
    assert_eq!(
        first.shards.iter().map(|shard| shard.name.0.as_str()).collect::<Vec<_>>(),
        ["shard-0", "shard-1"]
    );
    let mut shards = BTreeMap::new();
    for shard in &first.shards {
        shards.insert(
            shard.name.0.clone(),
            connect(Side::Source, &shard.connection(&spec), None, "orders-1").await?,
        );
    }
    for name in ["shop.hashed", "shop.ranged", "shop.compound"] {
        owners_are_the_shards(&first, &shards, name, documents.len()).await?;
    }
    let plain = Namespace::new("shop", "plain");
    assert_eq!(first.holders(&plain), [first.shards[0].name.clone()]);
    let versions = first.versions(&plain, &first.shards[0].name).context("known")?;
    assert_eq!(read(&shards["shard-0"], &plain, &versions).await?.len(), documents.len());

    // A split is no change; a move is one, which the shard notices too, and its orphans are not
    // read.
    rig.admin(doc! { "split": "shop.ranged", "middle": { "k": 5 } }).await?;
    let split = Cluster::discover(&router).await?;
    assert_eq!(split.changes_since(&first), []);
    rig.move_range("shop.ranged", doc! { "k": 5 }, 0).await?;
    let moved = Cluster::discover(&router).await?;
    let ranged = Namespace::new("shop", "ranged");
    assert_eq!(moved.changes_since(&split), [Change::ChunksMoved(ranged.clone())]);
    let stale = split.versions(&ranged, &split.shards[1].name).context("known")?;
    let refused = read(&shards["shard-1"], &ranged, &stale)
        .await
        .err()
        .context("a stale version is refused")?;
    assert_eq!(daemon::mongo::error::code(&refused), Some(13388));
    owners_are_the_shards(&moved, &shards, "shop.ranged", documents.len()).await?;
    assert!(!shards["shard-1"].collect("shop", rawdoc! { "find": "ranged" }).await?.is_empty());

    rig.admin(doc! { "movePrimary": "shop", "to": "shard-1" }).await?;
    rig.shard_collection("shop.new", doc! { "_id": 1 }, None).await?;
    client.database("shop").collection::<Document>("compound").drop().await?;
    let last = Cluster::discover(&router).await?;
    let expected = [
        Change::HomeMoved("shop".to_owned()),
        Change::Unsharded(Namespace::new("shop", "compound")),
        Change::Sharded(Namespace::new("shop", "new")),
    ];
    assert_eq!(last.changes_since(&moved), expected);

    assert_eq!(balancer::look(&router).await?, Balancer { is_on: false, is_in_round: false });
    balancer::start(&router).await?;
    assert!(balancer::look(&router).await?.is_on);
    balancer::stop(&router).await?;
    assert!(balancer::look(&router).await?.is_still());
    Ok(())
}
