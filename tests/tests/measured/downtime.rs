//! How long a cutover keeps the application from writing, as the application itself measures it:
//! from the source's refusal to the destination's first acceptance, under a steady load. It does
//! not depend on how much data is at rest.
#![expect(clippy::unwrap_used, reason = "a test fails where something is not as it must be")]

use std::time::Duration;

use rig::replica_set::{ROOT_PASSWORD, ROOT_USER};
use rig::scenario::MIGRATION;
use rig::workload::fill_uniform;
use rig::{Auth, Options, Stage, User, Writer, WriterOptions, cutoverd};

/// Documents at rest; `CUTOVER_DOWNTIME_DOCUMENTS` sets others, as `100000,3000000`.
const AT_REST: &str = "50000,500000";
const DOCUMENT_BYTES: usize = 100;
const WRITES_A_SECOND: u32 = 1_000;
const LIMIT: Duration = Duration::from_secs(5);
/// How far two cutovers of the same run lie apart on a machine that does other things as well.
const NOISE: Duration = Duration::from_millis(1_500);
const PATIENCE: Duration = Duration::from_secs(900);

/// What one cutover took.
#[derive(Debug)]
struct Downtime {
    application: Duration,
    daemon: Duration,
    /// Documents that were compared after the source was blocked.
    compared: u64,
}

async fn cut_over(at_rest: u64) -> Downtime {
    let named = |name: &str| Options { name: name.to_owned(), ..Options::default() };
    let application = User::new("application", "writing", &["readWriteAnyDatabase"]);
    // With access control the destination refuses everybody else until it is opened, and so tells
    // when that is.
    let destination = Options {
        auth: Some(Auth { users: vec![application.clone()] }),
        ..named("rs-destination")
    };
    let daemon = cutoverd::Config::default().env("ROOT_PASSWORD", ROOT_PASSWORD);
    let stage = Stage::set(named("rs-source"), destination, daemon).await.unwrap();
    let source = stage.source.client().await.unwrap();
    let then = stage.destination.client_as(&application).await.unwrap();
    fill_uniform(&source, "rest", "data", at_rest, DOCUMENT_BYTES).await.unwrap();
    let options = WriterOptions {
        rate: WRITES_A_SECOND,
        workers: 8,
        then: Some(then),
        ..WriterOptions::default()
    };
    let writer = Writer::start(&source, options).await.unwrap();

    let declaration = stage.declaration().user("destination", ROOT_USER, "ROOT_PASSWORD");
    stage.apply(&declaration).await.unwrap();
    stage.cutover.wait_for_phase(MIGRATION, "ready", PATIENCE).await.unwrap();
    let (before, began) = (writer.operations(), std::time::Instant::now());
    tokio::time::sleep(Duration::from_secs(2)).await;
    let rate = (writer.operations() - before) as f64 / began.elapsed().as_secs_f64();
    stage.acknowledge(&declaration).await.unwrap();
    let completed = stage.wait_for("completed").await.unwrap();

    let stats = writer.stop().await.unwrap();
    let theirs = stats.downtime().expect("the application went on at the destination");
    let ours = completed["cutover"]["downtime_seconds"].as_f64().unwrap();
    let report =
        stage.cutover.succeed(["report", MIGRATION, "--json"]).await.unwrap().json().unwrap();
    let compared = report["verification"]["compared_after_block"].as_u64().unwrap();
    println!(
        "{at_rest} at rest, {rate:.0} operations/s: the application waited {:.2} s, the daemon \
         says {ours:.2} s, {compared} documents were compared meanwhile",
        theirs.as_secs_f64()
    );
    assert_eq!(stats.missing_from(&stage.destination.client().await.unwrap()).await.unwrap(), []);
    Downtime { application: theirs, daemon: Duration::from_secs_f64(ours), compared }
}

#[tokio::test]
async fn an_application_is_kept_from_writing_for_seconds_however_much_there_is() {
    let _turn = super::alone().await;
    let sizes = std::env::var("CUTOVER_DOWNTIME_DOCUMENTS").unwrap_or_else(|_| AT_REST.to_owned());
    let mut downtimes = Vec::new();
    for size in sizes.split(',') {
        let size = size.trim().parse().unwrap();
        downtimes.push((size, cut_over(size).await));
    }
    for (size, downtime) in &downtimes {
        assert!(downtime.application < LIMIT && downtime.daemon < LIMIT, "{size}: {downtime:?}");
        // What is compared then is what was written lately, not what is there.
        assert!(downtime.compared < u64::from(WRITES_A_SECOND) * 10, "{size}: {downtime:?}");
    }
    let (least, most) =
        downtimes.iter().fold((Duration::MAX, Duration::ZERO), |(least, most), (_, downtime)| {
            (least.min(downtime.application), most.max(downtime.application))
        });
    assert!(most - least < NOISE, "{downtimes:?}");
}
