//! How long a cutover keeps the application from writing, as the application itself measures it: from the source's refusal to the
//! destination's first acceptance, under a steady load and with a million documents at rest.

use std::time::Duration;

use rig::replica_set::{ROOT_PASSWORD, ROOT_USER};
use rig::workload::fill_uniform;
use rig::{Auth, Options, Stage, User, Writer, WriterOptions, cutoverd};

const AT_REST: u64 = 1_000_000;
const DOCUMENT_BYTES: usize = 100;
const WRITES_A_SECOND: u32 = 1_000;
const LIMIT: Duration = Duration::from_secs(5);

#[tokio::test]
async fn an_application_is_kept_from_writing_for_seconds() {
    let named = |name: &str| Options { name: name.to_owned(), ..Options::default() };
    let application = User::new("application", "writing", &["readWriteAnyDatabase"]);
    // With access control the destination refuses everybody else until it is opened, and so tells when that is.
    let destination = Options { auth: Some(Auth { users: vec![application.clone()] }), ..named("rs-destination") };
    let daemon = cutoverd::Config::default().env("ROOT_PASSWORD", ROOT_PASSWORD);
    let stage = Stage::set(named("rs-source"), destination, daemon).await.unwrap();
    let source = stage.source.client().await.unwrap();
    let then = stage.destination.client_as(&application).await.unwrap();
    fill_uniform(&source, "rest", "data", AT_REST, DOCUMENT_BYTES).await.unwrap();
    let options = WriterOptions { rate: WRITES_A_SECOND, workers: 8, then: Some(then), ..WriterOptions::default() };
    let writer = Writer::start(&source, options).await.unwrap();

    let declaration = stage.declaration().user("destination", ROOT_USER, "ROOT_PASSWORD");
    stage.apply(&declaration).await.unwrap();
    stage.wait_for("ready").await.unwrap();
    let (before, began) = (writer.operations(), std::time::Instant::now());
    tokio::time::sleep(Duration::from_secs(2)).await;
    let rate = (writer.operations() - before) as f64 / began.elapsed().as_secs_f64();
    stage.acknowledge(&declaration).await.unwrap();
    let completed = stage.wait_for("completed").await.unwrap();

    let stats = writer.stop().await.unwrap();
    let theirs = stats.downtime().expect("the application went on at the destination");
    let ours = completed["cutover"]["downtime_seconds"].as_f64().unwrap();
    println!("{rate:.0} operations/s; the application waited {:.2} s, the daemon says {ours:.2} s", theirs.as_secs_f64());
    assert!(theirs < LIMIT, "{theirs:?}");
    assert!(ours < LIMIT.as_secs_f64(), "{ours} s");
    assert_eq!(stats.missing_from(&stage.destination.client().await.unwrap()).await.unwrap(), []);
}
