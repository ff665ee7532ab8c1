//! Health and metrics over HTTP: on loopback alone, for readers alone, without what would let
//! anybody act.
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
    assert!(
        metrics.contains("TYPE cutover_copy_writers gauge")
            && !metrics.contains("cutover_copy_writers{"),
        "{metrics}"
    );
    assert!(!metrics.contains(ready["acknowledge_token"].as_str().unwrap()), "{metrics}");
    for (request, status) in
        [("GET /", "404"), ("POST /metrics", "405"), ("GET /healthz/x", "404"), ("nonsense", "400")]
    {
        let answer = ask(number, request);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{request}: {answer}");
    }
}

/// Connections that send a little and then nothing, or one byte more now and then.
async fn slow_connections(
    port: u16,
    socket: &std::path::Path,
) -> (Vec<TcpStream>, Vec<std::os::unix::net::UnixStream>) {
    let (mut over_http, mut over_socket) = (Vec::new(), Vec::new());
    let mut refused = 0;
    while over_http.len() < 2_000 {
        match TcpStream::connect(("127.0.0.1", port)) {
            Ok(mut stream) => {
                // Cut already, perhaps: that is what is wanted.
                let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: ");
                over_http.push(stream);
            }
            // Its backlog is full for a moment.
            Err(error) => {
                refused += 1;
                assert!(refused < 1_000, "{error}");
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        }
        if over_http.len() % 4 == 0
            && let Ok(stream) = std::os::unix::net::UnixStream::connect(socket)
        {
            over_socket.push(stream);
        }
    }
    (over_http, over_socket)
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_callers_keep_nobody_from_the_daemon_nor_the_daemon_from_its_servers() {
    const DESCRIPTORS: usize = 1_024;
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, ..limit };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).unwrap();
    let port = ReservedPort::take().unwrap();
    let number = port.number();
    let config = cutoverd::Config::default().arg("--http").arg(format!("127.0.0.1:{number}"));
    let named = |name: &str| Options { name: name.to_owned(), ..Options::default() };
    let stage = Stage::set(
        named("rs-source"),
        named("rs-destination"),
        config.descriptors(DESCRIPTORS as u64),
    )
    .await
    .unwrap();
    let source = stage.source.client().await.unwrap();
    let orders = source.database("shop").collection("orders");
    orders.insert_one(doc! { "_id": 1 }).await.unwrap();
    let slow = slow_connections(number, &stage.daemon.socket()).await;

    // The daemon connects to both sides only now.
    stage.apply(&stage.declaration()).await.unwrap();
    stage.wait_for("ready").await.unwrap();
    let open = std::fs::read_dir(format!("/proc/{}/fd", stage.daemon.pid())).unwrap().count();
    assert!(open < DESCRIPTORS / 2, "{open} descriptors are open");
    let health = ask(number, "GET /healthz");
    assert!(health.starts_with("HTTP/1.1 200"), "{health}");
    orders.insert_one(doc! { "_id": 2 }).await.unwrap();
    let copied = stage.destination.client().await.unwrap();
    let copied = copied.database("shop").collection::<mongodb::bson::Document>("orders");
    let began = std::time::Instant::now();
    while copied.count_documents(doc! {}).await.unwrap() < 2 {
        assert!(began.elapsed() < std::time::Duration::from_secs(120), "the run stands still");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }

    // What is not answered in time is cut, whoever waits for it.
    let mut last = slow.0.into_iter().next_back().unwrap();
    last.set_read_timeout(Some(std::time::Duration::from_secs(120))).unwrap();
    let mut rest = Vec::new();
    let ended = last.read_to_end(&mut rest);
    assert!(
        ended.is_ok()
            || ended.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset)
    );
    drop(slow.1);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_machines_get_no_http() {
    let config = cutoverd::Config::default().arg("--http").arg("0.0.0.0:0");
    let refused = format!("{:#}", Cutoverd::start(config).await.unwrap_err());
    assert!(refused.contains("CUT0001") && refused.contains("without TLS"), "{refused}");
}
