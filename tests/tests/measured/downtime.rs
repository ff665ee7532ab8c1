//! How long a cutover keeps the application from writing, as the application itself measures it:
//! from the source's refusal to the destination's first acceptance, under a steady load. It does
//! not depend on how much data is at rest.
#![expect(clippy::unwrap_used, reason = "a test fails where something is not as it must be")]

use std::time::Duration;

use mongodb::Client;
use mongodb::bson::{Document, doc};
use rig::replica_set::{ROOT_PASSWORD, ROOT_USER};
use rig::scenario::MIGRATION;
use rig::workload::fill_uniform;
use rig::{Auth, Options, Stage, User, Writer, WriterOptions, cutoverd};

use super::sized;

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

/// Cuts over what `fill` has made, of which `at_rest` is the word.
async fn cut_over(at_rest: &str, fill: impl AsyncFnOnce(&Client)) -> Downtime {
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
    fill(&source).await;
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
        "{at_rest}, {rate:.0} operations/s: the application waited {:.2} s, the daemon \
         says {ours:.2} s, {compared} documents were compared meanwhile",
        theirs.as_secs_f64()
    );
    let of_cutover = ["draining", "blocked", "refuses", "applied", "settings", "writable"];
    for entry in stage.events(MIGRATION).await.unwrap() {
        let message = entry["message"].as_str().unwrap_or_default();
        if of_cutover.iter().any(|word| message.contains(word)) {
            println!("  {} {message}", entry["at"].as_str().unwrap_or_default());
        }
    }
    assert_eq!(stats.missing_from(&stage.destination.client().await.unwrap()).await.unwrap(), []);
    Downtime { application: theirs, daemon: Duration::from_secs_f64(ours), compared }
}

#[tokio::test]
async fn an_application_is_kept_from_writing_for_seconds_however_much_there_is() {
    let _turn = super::alone().await;
    let sizes = std::env::var("CUTOVER_DOWNTIME_DOCUMENTS").unwrap_or_else(|_| AT_REST.to_owned());
    let mut downtimes = Vec::new();
    for size in sizes.split(',') {
        let size: u64 = size.trim().parse().unwrap();
        let fill = async |source: &Client| {
            fill_uniform(source, "rest", "data", size, DOCUMENT_BYTES).await.unwrap();
        };
        downtimes.push((size, cut_over(&format!("{size} at rest"), fill).await));
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

/// The order of capped collections and all definitions are compared before it, but for what came
/// since. `CUTOVER_CAPPED_MB` and `CUTOVER_DEFINITIONS` (collections, with two indexes each) set
/// how many there are.
#[tokio::test]
async fn capped_collections_and_definitions_cost_it_little() {
    let _turn = super::alone().await;
    let (capped, definitions) = (sized("CUTOVER_CAPPED_MB", 32), sized("CUTOVER_DEFINITIONS", 100));
    let fill = async |source: &Client| {
        let rest = source.database("rest");
        let size = i64::try_from(capped << 21).unwrap();
        rest.run_command(doc! { "create": "log", "capped": true, "size": size }).await.unwrap();
        let log = rest.collection::<Document>("log");
        let text = "x".repeat(950);
        for batch in 0..capped {
            let documents = (0..1_024_i64).map(|n| {
                doc! { "_id": i64::try_from(batch).unwrap() * 1_024 + n, "text": text.as_str() }
            });
            log.insert_many(documents).await.unwrap();
        }
        for number in 0..definitions {
            let name = format!("c{number}");
            let indexes = [
                doc! { "key": { "a": 1 }, "name": "a", "unique": true },
                doc! { "key": { "b": 1, "c": -1 }, "name": "bc" },
            ];
            let create = doc! { "createIndexes": name.as_str(), "indexes": indexes.to_vec() };
            rest.run_command(create).await.unwrap();
        }
    };
    let what = format!("{capped} MB capped and {definitions} collections");
    let downtime = cut_over(&what, fill).await;
    assert!(downtime.application < LIMIT && downtime.daemon < LIMIT, "{downtime:?}");
}
