//! A collection is spread over a destination's shards once; where its chunks go afterwards is its
//! owner's to say.

use anyhow::{Context as _, Result, ensure};
use daemon::engine::catalog;
use daemon::engine::destination::shard_collection;
use daemon::mongo::{Deployment, Side, connect};
use mongodb::bson::{Bson, Document, doc};
use rig::{ClusterOptions, Options, ReplicaSet, ShardedCluster};
use schemas::id::MigrationName;
use schemas::namespace::Namespace;
use schemas::spec::{Balancer, MigrationSpec, ShardKeySpec, ShardingSpec};

/// The shards that hold the collection's ranges, in their order.
async fn holders(cluster: &ShardedCluster) -> Result<Vec<String>> {
    let chunks = cluster.chunks("shop.orders").await?;
    chunks.iter().map(|chunk| Ok(chunk.get_str("shard")?.to_owned())).collect()
}

async fn shard(
    source: &Deployment,
    destination: &Deployment,
    sharding: &ShardingSpec,
) -> Result<()> {
    let namespace = Namespace::new("shop", "orders");
    let info = catalog::find(source, &namespace).await?.context("no collection")?;
    catalog::create(destination, "shop", info.create_command()).await?;
    Ok(shard_collection::shard(source, destination, Some(sharding), &info).await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_spread_stays_where_its_owner_moved_it() -> Result<()> {
    let (set, cluster) = tokio::try_join!(
        ReplicaSet::start(Options::default()),
        ShardedCluster::start(ClusterOptions::shards(2))
    )?;
    let documents = || (0..100).map(|n| doc! { "_id": n, "a": n });
    set.client().await?.database("shop").collection("orders").insert_many(documents()).await?;
    let spec = MigrationSpec::between(MigrationName::new("orders")?, set.uri(), cluster.uri());
    let source = connect(Side::Source, &spec.source.connection, None, "orders-1").await?;
    let destination =
        connect(Side::Destination, &spec.destination.connection, None, "orders-1").await?;
    let key =
        ShardKeySpec { namespace: Namespace::new("shop", "orders"), key: vec!["a:1".to_owned()] };
    let sharding = ShardingSpec { balancer: Balancer::RequireOff, collections: vec![key] };

    shard(&source, &destination, &sharding).await?;
    let spread = holders(&cluster).await?;
    ensure!(spread == ["shard-0", "shard-1"], "{spread:?}");

    // It may be done again as long as nothing is there, and ends although a shard will not take
    // back yet what it gave away.
    let client = cluster.client().await?;
    let orders = client.database("shop").collection::<Document>("orders");
    orders.insert_many(documents()).await?;
    cluster.move_range("shop.orders", doc! { "a": Bson::MinKey }, 1).await?;
    let moved = holders(&cluster).await?;
    ensure!(moved == ["shard-1", "shard-1"], "{moved:?}");
    shard(&source, &destination, &sharding).await?;
    let kept = holders(&cluster).await?;
    ensure!(kept == moved, "shard-0 has orphans of it still, and took it: {kept:?}");

    // With documents on several shards it has been spread.
    let chunk = doc! { "a": { "$gte": 50 } };
    let upper = cluster.chunks("shop.orders").await?.pop().context("no chunks")?;
    cluster.move_range("shop.orders", upper.get_document("min")?.clone(), 0).await?;
    let turned = holders(&cluster).await?;
    ensure!(turned == ["shard-1", "shard-0"], "{turned:?}");
    shard(&source, &destination, &sharding).await?;
    ensure!(holders(&cluster).await? == turned, "{:?}", holders(&cluster).await?);
    ensure!(
        orders.count_documents(doc! {}).await? == 100 && orders.count_documents(chunk).await? == 50
    );
    Ok(())
}
