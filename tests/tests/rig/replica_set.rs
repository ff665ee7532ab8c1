//! The rig's own servers: they start, ask for what they were told to ask for, and leave nothing
//! behind.
#![expect(clippy::unwrap_used, reason = "a test fails where something is not as it must be")]

use std::fs;
use std::time::{Duration, Instant};

use mongodb::Client;
use mongodb::bson::{Document, doc};
use mongodb::options::ClientOptions;
use rig::child_process::is_running;
use rig::fault_proxy::Faults;
use rig::{Auth, Options, ReplicaSet, TlsMode, User};

async fn impatient(uri: &str) -> Client {
    let mut options = ClientOptions::parse(uri).await.unwrap();
    options.server_selection_timeout = Some(Duration::from_millis(700));
    Client::with_options(options).unwrap()
}

#[tokio::test]
async fn a_set_of_one_takes_writes_and_leaves_nothing() {
    let set = ReplicaSet::start(Options::default()).await.unwrap();
    let client = set.client().await.unwrap();
    client.database("a").collection("b").insert_one(doc! { "_id": 1 }).await.unwrap();
    let pid = set.pid(0);
    let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    let data = command
        .split('\0')
        .skip_while(|argument| *argument != "--dbpath")
        .nth(1)
        .unwrap()
        .to_owned();
    assert!(fs::exists(&data).unwrap());
    drop(set);
    assert!(!is_running(pid));
    assert!(!fs::exists(&data).unwrap());
}

#[tokio::test]
async fn a_set_of_three_elects_again_when_its_primary_dies() {
    let start = Instant::now();
    let options =
        Options { members: 3, election_timeout: Duration::from_secs(2), ..Options::default() };
    let mut set = ReplicaSet::start(options).await.unwrap();
    eprintln!("three members after {:?}", start.elapsed());
    let client = set.client().await.unwrap();
    let collection = client.database("a").collection::<Document>("b");
    collection.insert_one(doc! { "_id": 1 }).await.unwrap();
    let first = set.primary().await.unwrap();
    set.kill_member(first).await.unwrap();
    let second = set.primary().await.unwrap();
    assert_ne!(first, second);
    collection.insert_one(doc! { "_id": 2 }).await.unwrap();
    set.restart_member(first).await.unwrap();
    set.step_down(5).await.unwrap();
    set.primary().await.unwrap();
    assert_eq!(collection.count_documents(doc! {}).await.unwrap(), 2);
    set.stop_member(first).await.unwrap();
}

#[tokio::test]
async fn access_control_knows_its_users() {
    let reader = User::new("reader", "secret", &["readAnyDatabase"]);
    let options =
        Options { auth: Some(Auth { users: vec![reader.clone()] }), ..Options::default() };
    let set = ReplicaSet::start(options).await.unwrap();
    let root = set.client().await.unwrap();
    root.database("a").collection("b").insert_one(doc! { "_id": 1 }).await.unwrap();
    let collection =
        set.client_as(&reader).await.unwrap().database("a").collection::<Document>("b");
    assert_eq!(collection.count_documents(doc! {}).await.unwrap(), 1);
    assert!(collection.insert_one(doc! {}).await.is_err());
    let nobody = Client::with_uri_str(set.uri()).await.unwrap();
    assert!(
        nobody.database("a").collection::<Document>("b").count_documents(doc! {}).await.is_err()
    );
}

#[tokio::test]
async fn tls_and_a_user_known_by_its_certificate() {
    let subject = "CN=migrator,OU=clients,O=cutover";
    let user = User::x509(subject, &["readWriteAnyDatabase"]);
    let options = Options {
        members: 2,
        auth: Some(Auth { users: vec![user.clone()] }),
        tls: Some(TlsMode::ClientCertificate),
        ..Options::default()
    };
    let set = ReplicaSet::start(options).await.unwrap();
    assert_eq!(set.tls().unwrap().client_subject, subject);
    let collection = set.client_as(&user).await.unwrap().database("a").collection::<Document>("b");
    collection.insert_one(doc! { "_id": 1 }).await.unwrap();
    assert!(
        impatient(&set.uri()).await.list_database_names().await.is_err(),
        "plain text must be refused"
    );
    let ca = set.tls().unwrap().ca_file.display().to_string();
    let bare = impatient(&format!("{}&tls=true&tlsCAFile={ca}", set.uri())).await;
    assert!(
        bare.list_database_names().await.is_err(),
        "a client without a certificate must be refused"
    );
}

#[tokio::test]
async fn a_standalone_server_is_no_replica_set() {
    let set = ReplicaSet::start(Options { standalone: true, ..Options::default() }).await.unwrap();
    let client = set.client().await.unwrap();
    let hello = client.database("admin").run_command(doc! { "hello": 1 }).await.unwrap();
    assert!(!hello.contains_key("setName"));
    client.database("a").collection("b").insert_one(doc! {}).await.unwrap();
}

#[tokio::test]
async fn a_proxied_set_is_cut_off_and_heals() {
    let set = ReplicaSet::start(Options { proxied: true, ..Options::default() }).await.unwrap();
    let client = impatient(&set.uri()).await;
    let collection = client.database("a").collection::<Document>("b");
    collection.insert_one(doc! { "_id": 1 }).await.unwrap();
    let proxy = set.proxy(0).unwrap();
    proxy.partition();
    assert!(collection.insert_one(doc! { "_id": 2 }).await.is_err());
    proxy.heal();
    tokio::time::timeout(Duration::from_secs(10), async {
        while collection.insert_one(doc! { "_id": 3 }).await.is_err() {}
    })
    .await
    .unwrap();
    proxy.set(Faults { delay: Duration::from_millis(150), ..Faults::default() });
    let start = Instant::now();
    collection.find_one(doc! {}).await.unwrap();
    assert!(start.elapsed() >= Duration::from_millis(300));
}

/// Starts this test program again for the one test below, kills it, and looks for what it left.
#[tokio::test]
async fn a_killed_test_program_leaves_no_mongod() {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("pid");
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "replica_set::holds_a_set_until_it_is_killed", "--ignored"])
        .env("RIG_PID_FILE", &report)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let start = Instant::now();
    let pid: i32 = loop {
        if let Some(pid) = fs::read_to_string(&report).ok().and_then(|text| text.parse().ok()) {
            break pid;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "the other program started no server");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    let data = command
        .split('\0')
        .skip_while(|argument| *argument != "--dbpath")
        .nth(1)
        .unwrap()
        .to_owned();
    assert!(is_running(pid));
    child.kill().unwrap();
    child.wait().unwrap();
    let start = Instant::now();
    while is_running(pid) || fs::exists(&data).unwrap() {
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "mongod {pid} or its data outlived its test"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
#[ignore = "started by a_killed_test_program_leaves_no_mongod alone"]
async fn holds_a_set_until_it_is_killed() {
    let Some(report) = std::env::var_os("RIG_PID_FILE") else { return };
    let set = ReplicaSet::start(Options::default()).await.unwrap();
    let draft = std::path::Path::new(&report).with_extension("draft");
    fs::write(&draft, set.pid(0).to_string()).unwrap();
    fs::rename(&draft, &report).unwrap();
    std::future::pending::<()>().await;
}
