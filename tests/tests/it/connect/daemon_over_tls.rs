//! A daemon on another machine: TCP, where both sides prove who they are with certificates.

use std::fs;
use std::path::Path;

use rig::compare::{Scope, compare};
use rig::ports::ReservedPort;
use rig::scenario::MIGRATION;
use rig::tls::TlsFiles;
use rig::{Cutover, FillOptions, Options, Stage, cutoverd, fill};

fn with_certificates(
    folder: &Path,
    endpoint: &str,
    ca_file: &Path,
    certificate_key_file: &Path,
) -> Cutover {
    Cutover::new(folder)
        .env("CUTOVER_ENDPOINT", endpoint)
        .env("CUTOVER_TLS_CA_FILE", ca_file)
        .env("CUTOVER_TLS_CERTIFICATE_KEY_FILE", certificate_key_file)
}

#[tokio::test]
async fn a_migration_is_carried_out_by_a_daemon_on_tcp() {
    let folder = tempfile::tempdir().unwrap();
    let files = TlsFiles::write(folder.path()).unwrap();
    let port = ReservedPort::take().unwrap();
    let endpoint = format!("tcp://localhost:{}", port.number());
    let named = |name: &str| Options { name: name.to_owned(), ..Options::default() };
    let stage = Stage::set(
        named("rs-source"),
        named("rs-destination"),
        cutoverd::Config::default().listen_tls(port.number(), &files),
    )
    .await
    .unwrap();
    let source = stage.source.client().await.unwrap();
    fill(&source, &FillOptions { documents: 500, ..FillOptions::default() }).await.unwrap();

    // All that the command line is told stands in the HCL.
    for (from, to) in [(&files.ca_file, "ca.pem"), (&files.client_file, "client.pem")] {
        fs::copy(from, stage.folder().join(to)).unwrap();
    }
    let daemon = format!(
        "daemon {{\n  endpoint = {endpoint:?}\n  tls {{\n    ca_file = \"ca.pem\"\n    \
         certificate_key_file = \"client.pem\"\n  }}\n}}\n"
    );
    fs::write(stage.folder().join("daemon.hcl"), daemon).unwrap();
    stage.declaration().set("cutover.source_after", "\"open\"").write(stage.folder()).unwrap();
    let remote = Cutover::new(stage.folder()).env("CUTOVER_ACTOR", "ada");
    remote.succeed(["plan", "--out", "p.cutplan"]).await.unwrap();
    let saved = fs::read_to_string(stage.folder().join("p.cutplan")).unwrap();
    assert!(!saved.contains("PRIVATE KEY"), "a saved plan holds no key");
    remote.succeed(["apply", "p.cutplan", "--wait", "ready"]).await.unwrap();

    // The journal has whose certificate it was.
    let events = remote.succeed(["events", MIGRATION, "--json"]).await.unwrap();
    assert!(events.stdout.contains("\"certificate\": \"sha256:"), "{events}");
    let told = remote.succeed(["events", MIGRATION]).await.unwrap();
    assert!(told.stdout.contains("ada (certificate sha256:"), "{told}");

    // The socket of the daemon's own machine is there besides.
    stage.acknowledge(&stage.declaration().text("cutover.source_after", "open")).await.unwrap();
    stage.wait_for("completed").await.unwrap();
    let report = compare(&source, &stage.destination.client().await.unwrap(), &Scope::default())
        .await
        .unwrap();
    assert!(report.is_equal() && report.equal_documents >= 500, "{report}");
    remote.succeed(["drift"]).await.unwrap();
}

#[tokio::test]
async fn who_cannot_prove_itself_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let files = TlsFiles::write(folder.path()).unwrap();
    let other = tempfile::tempdir().unwrap();
    let strangers = TlsFiles::write(other.path()).unwrap();
    let port = ReservedPort::take().unwrap();
    let endpoint = format!("tcp://127.0.0.1:{}", port.number());
    let daemon =
        cutoverd::Cutoverd::start(cutoverd::Config::default().listen_tls(port.number(), &files))
            .await
            .unwrap();
    let empty = tempfile::tempdir().unwrap();

    let status = |cutover: Cutover| async move { cutover.run(["status", "--json"]).await.unwrap() };
    let known = with_certificates(empty.path(), &endpoint, &files.ca_file, &files.client_file);
    let output = status(known).await;
    assert_eq!((output.code, output.stdout.contains("\"migrations\": []")), (0, true), "{output}");

    // A caller of another authority.
    let output =
        status(with_certificates(empty.path(), &endpoint, &files.ca_file, &strangers.client_file))
            .await;
    assert_eq!(output.code, 3, "{output}");
    assert!(
        output.stderr.contains("error[CUT0003]")
            && output.stderr.contains("refuses this caller's certificate"),
        "{output}"
    );

    // A daemon of another authority.
    let output =
        status(with_certificates(empty.path(), &endpoint, &strangers.ca_file, &files.client_file))
            .await;
    assert_eq!(output.code, 3, "{output}");
    assert!(
        output.stderr.contains("error[CUT0003]")
            && output.stderr.contains("shows a certificate that is not"),
        "{output}"
    );

    // Nothing to show at all, and half of it.
    let output = status(Cutover::new(empty.path()).env("CUTOVER_ENDPOINT", &endpoint)).await;
    assert_eq!(output.code, 1, "{output}");
    assert!(output.stderr.contains("CUTOVER_TLS_CA_FILE"), "{output}");
    let half = Cutover::new(empty.path())
        .env("CUTOVER_ENDPOINT", &endpoint)
        .env("CUTOVER_TLS_CA_FILE", &files.ca_file);
    let output = status(half).await;
    assert!(
        output.code == 1 && output.stderr.contains("CUTOVER_TLS_CERTIFICATE_KEY_FILE is not"),
        "{output}"
    );

    // Without TLS, nobody is heard.
    let mut plain = std::net::TcpStream::connect(("127.0.0.1", port.number())).unwrap();
    std::io::Write::write_all(&mut plain, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    // Whether the connection is closed or reset is the kernel's affair; what counts is what came.
    let _ = std::io::Read::read_to_end(&mut plain, &mut answer);
    assert!(answer.len() < 16 && !answer.starts_with(b"\0\0"), "an alert at most: {answer:?}");
    assert!(daemon.is_running());
}

#[tokio::test]
async fn a_daemon_does_not_listen_on_tcp_without_certificates() {
    let folder = tempfile::tempdir().unwrap();
    let files = TlsFiles::write(folder.path()).unwrap();
    let port = ReservedPort::take().unwrap();
    let alone =
        cutoverd::Config::default().arg("--listen-tls").arg(format!("127.0.0.1:{}", port.number()));
    let error = cutoverd::Cutoverd::start(alone).await.unwrap_err();
    assert!(format!("{error:#}").contains("--tls-client-ca-file"), "{error:#}");
    // A file without a key.
    let keyless = TlsFiles { server_file: files.ca_file.clone(), ..files };
    let error =
        cutoverd::Cutoverd::start(cutoverd::Config::default().listen_tls(port.number(), &keyless))
            .await
            .unwrap_err();
    assert!(
        format!("{error:#}").contains("error[CUT0001]") && format!("{error:#}").contains("key"),
        "{error:#}"
    );
}
