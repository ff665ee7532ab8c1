//! By which way a sharded source is read: chosen once, and never since a shard is down.

use anyhow::Result;
use daemon::engine::source::Source;
use daemon::engine::source::behind_router::{Manner, NAME};
use daemon::memory::Memory;
use rig::{ClusterOptions, ShardedCluster};
use schemas::fault::Fault;
use schemas::spec::ConnectionSpec;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_way_that_was_chosen_is_kept_and_a_shard_that_is_down_is_no_reason_for_another()
-> Result<()> {
    let mut cluster = ShardedCluster::start(ClusterOptions::shards(2)).await?;
    let spec = ConnectionSpec { uri: cluster.uri(), username: None, password: None, tls: None };
    let read = async |manner: Option<Manner>| -> Result<Vec<String>, Fault> {
        let source = Source::connect(&spec, "orders-1-7", &Memory::default(), manner).await?;
        Ok(source.names().map(|name| name.0.clone()).collect())
    };
    assert_eq!(read(None).await?, ["shard-0", "shard-1"]);
    // Though the shards can be reached by now.
    assert_eq!(read(Some(Manner::ThroughRouter { unreached: Vec::new() })).await?, [NAME]);
    cluster.shard_mut(1).kill_member(0).await?;
    for manner in [None, Some(Manner::Direct)] {
        let fault = read(manner).await.expect_err("a shard is down, for the router as well");
        assert!(fault.retryable, "{fault}");
    }
    Ok(())
}
