//! Health and metrics over HTTP: on loopback alone, for readers alone, without what would let anybody act.
#![expect(clippy::unwrap_used, reason = "a test fails where something is not as it must be")]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use mongodb::bson::doc;
use rig::ports::ReservedPort;
use rig::{Cutoverd, Options, Stage, cutoverd};

/// Asks, and gives the whole answer.
fn ask(port: u16, request: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    write!(stream, "{request} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_and_metrics_are_answered_and_nothing_else() {
    let port = ReservedPort::take().unwrap();
    let number = port.number();
    let config = cutoverd::Config::default().arg("--http").arg(format!("127.0.0.1:{number}"));
    let named = |name: &str| Options { name: name.to_owned(), ..Options::default() };
    let stage = Stage::set(named("rs-source"), named("rs-destination"), config).await.unwrap();
    let source = stage.source.client().await.unwrap();
    source.database("shop").collection("orders").insert_one(doc! { "_id": 1 }).await.unwrap();
    stage.apply(&stage.declaration()).await.unwrap();
    let ready = stage.wait_for("ready").await.unwrap();

    let health = ask(number, "GET /healthz");
    assert!(health.starts_with("HTTP/1.1 200") && health.ends_with("ok\n"), "{health}");
    let metrics = ask(number, "GET /metrics");
    assert!(metrics.starts_with("HTTP/1.1 200") && metrics.contains("version=0.0.4"), "{metrics}");
    let labels = format!("workspace={},migration=\"orders\"", ready["workspace"]);
    for line in [
        format!("cutover_phase{{{labels},phase=\"ready\"}} 1\n"),
        format!("cutover_phase{{{labels},phase=\"copying\"}} 0\n"),
        format!("cutover_copy_bytes{{{labels}}} {}\n", ready["copy"]["bytes_copied"]),
        format!("cutover_mismatches{{{labels}}} 0\n"),
    ] {
        assert!(metrics.contains(&line), "{line} is not in {metrics}");
    }
    // Only while it copies.
    assert!(metrics.contains("TYPE cutover_copy_writers gauge") && !metrics.contains("cutover_copy_writers{"), "{metrics}");
    assert!(!metrics.contains(ready["acknowledge_token"].as_str().unwrap()), "{metrics}");
    for (request, status) in [("GET /", "404"), ("POST /metrics", "405"), ("GET /healthz/x", "404"), ("nonsense", "400")] {
        let answer = ask(number, request);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{request}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn other_machines_get_no_http() {
    let config = cutoverd::Config::default().arg("--http").arg("0.0.0.0:0");
    let refused = format!("{:#}", Cutoverd::start(config).await.unwrap_err());
    assert!(refused.contains("CUT0001") && refused.contains("without TLS"), "{refused}");
}
