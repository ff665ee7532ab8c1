//! A balancer that a run stopped is given back by the last run that needs it off, whatever came
//! between; and by nobody else.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use daemon::engine::drift::shards;
use daemon::engine::source::balancer::{self, Balancer};
use daemon::engine::source::balancer_hold;
use daemon::mongo::{Deployment, Side, connect};
use mongodb::bson::doc;
use mongodb::options::WriteConcern;
use rig::{ClusterOptions, ShardedCluster};
use schemas::fault::FaultCode;
use schemas::id::MigrationName;
use schemas::observed::FindingKind;
use schemas::spec::*;

fn spec(uri: String, sharding: Option<ShardingSpec>) -> MigrationSpec {
    let spec = MigrationSpec::between(
        MigrationName::new("orders").expect("a name"),
        uri,
        "mongodb://127.0.0.1:1/",
    );
    MigrationSpec { sharding, ..spec }
}

async fn is_on(router: &Deployment) -> Result<bool> {
    Ok(balancer::look(router).await?.is_on)
}

async fn give_back(run_dir: &Path, router: &Arc<Deployment>) -> Result<()> {
    Ok(balancer_hold::give_back(run_dir, async { Ok(Arc::clone(router)) }).await?)
}

#[tokio::test]
async fn the_last_run_that_holds_a_balancer_gives_it_back() -> Result<()> {
    let cluster = ShardedCluster::start(ClusterOptions::shards(1)).await?;
    let managed = spec(
        cluster.uri(),
        Some(ShardingSpec { balancer: schemas::spec::Balancer::Manage, collections: Vec::new() }),
    );
    let router =
        Arc::new(connect(Side::Source, &managed.source.connection, None, "orders-1").await?);
    let folder = tempfile::tempdir()?;
    let [first, second] = ["first", "second"].map(|name| folder.path().join("runs").join(name));

    // Off before: it is nobody's to give back.
    balancer_hold::ensure_still(&router, &managed, &first).await?;
    assert!(!balancer_hold::is_held(&first));
    give_back(&first, &router).await?;
    assert!(!is_on(&router).await?);

    // Without a block, or where the block says so, it must be off already, and is left alone.
    balancer::start(&router).await?;
    for plain in [spec(cluster.uri(), None), {
        let require =
            ShardingSpec { balancer: schemas::spec::Balancer::RequireOff, collections: Vec::new() };
        spec(cluster.uri(), Some(require))
    }] {
        let fault =
            balancer_hold::ensure_still(&router, &plain, &first).await.expect_err("it is on");
        assert_eq!((fault.code, fault.retryable), (FaultCode::BalancerOn, true), "{fault}");
        assert!(is_on(&router).await? && !balancer_hold::is_held(&first));
    }

    // Stopped for one run, and held by a second that comes meanwhile.
    balancer_hold::ensure_still(&router, &managed, &first).await?;
    balancer_hold::ensure_still(&router, &managed, &second).await?;
    assert!(
        balancer_hold::is_held(&first)
            && balancer_hold::is_held(&second)
            && !is_on(&router).await?
    );
    assert!(shards::look(&router, &first).await.is_empty());

    // Somebody starts it by hand: it is noticed, and the next start of the run stops it.
    let mut watch = balancer_hold::Watch::default();
    balancer::start(&router).await?;
    assert!(watch.blocker(&router).await.is_some_and(|blocker| blocker.contains("CUT0061")));
    let findings = shards::look(&router, &first).await;
    assert_eq!(findings.iter().map(|one| one.kind).collect::<Vec<_>>(), [FindingKind::BalancerOn]);
    balancer_hold::ensure_still(&router, &managed, &first).await?;
    assert!(!is_on(&router).await?);

    // The source is away when a run ends: it holds the balancer until it could give it back.
    let away = || async { Err(schemas::fault::Fault::new(FaultCode::Unreachable, "away")) };
    assert_eq!(
        balancer_hold::give_back(&first, away()).await.expect_err("away").code,
        FaultCode::Unreachable
    );
    assert!(balancer_hold::is_held(&first));

    give_back(&first, &router).await?;
    assert!(
        !balancer_hold::is_held(&first) && !is_on(&router).await?,
        "the second run needs it off still"
    );
    give_back(&second, &router).await?;
    assert!(!balancer_hold::is_held(&second) && is_on(&router).await?);
    // Once more, as after a crash: somebody has stopped it since, for reasons of his own.
    balancer::stop(&router).await?;
    give_back(&second, &router).await?;
    assert!(!is_on(&router).await?);
    Ok(())
}

#[tokio::test]
async fn routers_without_the_commands_are_served_by_the_settings() -> Result<()> {
    let cluster = ShardedCluster::start(ClusterOptions::shards(1)).await?;
    let router =
        connect(Side::Source, &spec(cluster.uri(), None).source.connection, None, "orders-1")
            .await?;
    // The config server knows none of a router's commands, and holds the same settings.
    let config = connect(
        Side::Source,
        &spec(cluster.config().uri(), None).source.connection,
        None,
        "orders-1",
    )
    .await?;
    assert!(config.command("admin", doc! { "balancerStatus": 1 }).await.is_err());
    for deployment in [&router, &config] {
        balancer::start(deployment).await?;
        assert!(balancer::look(&router).await?.is_on && balancer::look(&config).await?.is_on);
        balancer::stop(deployment).await?;
        let still = Balancer { is_on: false, is_in_round: false };
        assert_eq!(
            (balancer::look(&router).await?, balancer::look(&config).await?),
            (still, still)
        );
    }
    // A cluster whose balancer nobody ever touched has it on.
    let settings = cluster
        .config()
        .client()
        .await?
        .database("config")
        .collection::<mongodb::bson::Document>("settings");
    let deleted = settings
        .delete_one(doc! { "_id": "balancer" })
        .write_concern(WriteConcern::majority())
        .await?;
    assert_eq!(deleted.deleted_count, 1);
    assert_eq!(balancer::look(&config).await?, Balancer { is_on: true, is_in_round: false });
    Ok(())
}

#[tokio::test]
async fn shards_that_came_are_noticed() -> Result<()> {
    let cluster = ShardedCluster::start(ClusterOptions::shards(1)).await?;
    let router =
        connect(Side::Source, &spec(cluster.uri(), None).source.connection, None, "orders-1")
            .await?;
    let folder = tempfile::tempdir()?;
    shards::keep(&router, folder.path(), &std::collections::BTreeSet::new()).await?;
    assert!(shards::look(&router, folder.path()).await.is_empty());
    let shards = cluster
        .config()
        .client()
        .await?
        .database("config")
        .collection::<mongodb::bson::Document>("shards");
    let first = shards.find_one(doc! {}).await?.unwrap_or_default();
    let mut added = first.clone();
    added.insert("_id", "shard-9");
    added.insert("host", "shard-9/127.0.0.1:1");
    shards.insert_one(added).write_concern(WriteConcern::majority()).await?;
    // What the run began with stays, however often it is started.
    shards::keep(&router, folder.path(), &std::collections::BTreeSet::new()).await?;
    let findings = shards::look(&router, folder.path()).await;
    let told: Vec<_> = findings.iter().map(|one| (one.kind, one.path.as_str())).collect();
    assert_eq!(told, [(FindingKind::ShardAdded, "source.shards.shard-9")]);
    shards.delete_one(doc! { "_id": "shard-9" }).write_concern(WriteConcern::majority()).await?;
    assert!(shards::look(&router, folder.path()).await.is_empty());
    Ok(())
}
