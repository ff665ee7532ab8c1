//! The ways to reach a deployment: passwords, certificates, an authority of one's own, users that
//! may do little.
#![expect(clippy::unwrap_used, reason = "a test fails where something is not as it must be")]

use std::fs;

use mongodb::Client;
use mongodb::bson::{Document, doc};
use rig::compare::{Scope, compare};
use rig::replica_set::{ROOT_PASSWORD, ROOT_USER};
use rig::scenario::MIGRATION;
use rig::{
    Auth, Cutover, Declaration, FillOptions, Options, Stage, TlsMode, User, Writer, WriterOptions,
    cutoverd, fill,
};

/// The subject of the rig's client certificate.
const SUBJECT: &str = "CN=migrator,OU=clients,O=cutover";

fn with_users(name: &str, users: Vec<User>) -> Options {
    Options { name: name.to_owned(), auth: Some(Auth { users }), ..Options::default() }
}

async fn assert_equal(stage: &Stage) {
    let (source, destination) =
        (stage.source.client().await.unwrap(), stage.destination.client().await.unwrap());
    let report = compare(&source, &destination, &Scope::default()).await.unwrap();
    assert!(report.is_equal() && report.equal_documents > 0, "{report}");
}

/// What `plan` says on stderr of a declaration that cannot be carried out.
async fn refusal(stage: &Stage, declaration: &Declaration, code: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    declaration.write(folder.path()).unwrap();
    let output = Cutover::new(folder.path()).daemon(&stage.daemon).run(["plan"]).await.unwrap();
    assert_eq!(output.code, 1, "{output}");
    assert!(
        output.stderr.contains(&format!("error[{code}]: ")) && output.stderr.contains("remedy: "),
        "{code}: {output}"
    );
    output.stderr
}

#[tokio::test]
async fn a_source_may_be_reached_at_another_address_within_a_run_and_be_no_other_deployment() {
    let named = |name: &str| Options { name: name.to_owned(), ..Options::default() };
    let source = Options { members: 2, ..named("rs-source") };
    let stage =
        Stage::set(source, named("rs-destination"), cutoverd::Config::default()).await.unwrap();
    let client = stage.source.client().await.unwrap();
    let orders = client.database("shop").collection("orders");
    orders.insert_one(doc! { "_id": 1 }).await.unwrap();
    let at = |host: String| {
        stage.declaration().text("source.uri", &format!("mongodb://{host}/?replicaSet=rs-source"))
    };
    let (first, second) = (at(stage.source.host(0)), at(stage.source.host(1)));
    stage.apply(&first).await.unwrap();
    let run = stage.wait_for("ready").await.unwrap()["run"].clone();

    second.write(stage.folder()).unwrap();
    let planned = stage.cutover.succeed(["plan"]).await.unwrap();
    assert!(planned.stdout.contains("connects anew to the source"), "{planned}");
    stage.apply(&second).await.unwrap();
    orders.insert_one(doc! { "_id": 2 }).await.unwrap();
    let copied =
        stage.destination.client().await.unwrap().database("shop").collection::<Document>("orders");
    let patience = std::time::Duration::from_secs(120);
    let began = std::time::Instant::now();
    while copied.count_documents(doc! {}).await.unwrap() < 2 {
        assert!(began.elapsed() < patience, "the run stands still: {}", stage.daemon.log_end());
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(stage.wait_for("ready").await.unwrap()["run"], run);

    // Of the same name, and another.
    let other = rig::ReplicaSet::start(named("rs-source")).await.unwrap();
    stage.apply(&at(other.host(0))).await.unwrap();
    let began = std::time::Instant::now();
    loop {
        let status = stage.cutover.status(MIGRATION).await.unwrap();
        if status["error"]["code"] == "CUT0056" {
            assert_eq!(
                (&status["ready"]["value"], &status["run"]),
                (&false.into(), &run),
                "{status:#}"
            );
            break;
        }
        assert!(began.elapsed() < patience, "it is not refused: {status:#}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(copied.count_documents(doc! {}).await.unwrap(), 2);
    stage.apply(&second).await.unwrap();
    // Where it has failed by then; else it goes on by itself.
    stage.cutover.run(["resume", MIGRATION]).await.unwrap();
    assert_eq!(stage.wait_for("ready").await.unwrap()["run"], run);
}

/// A role with what no built-in role of least privilege has.
async fn create_role(client: &Client, name: &str, actions: &[&str]) {
    let privileges = [doc! { "resource": { "cluster": true }, "actions": actions.to_vec() }];
    let create = doc! { "createRole": name, "privileges": privileges.to_vec(), "roles": [] };
    client.database("admin").run_command(create).await.unwrap();
}

#[tokio::test]
async fn passwords_of_users_with_the_least_privileges() {
    let application =
        User::new("shop", "application", &["readWriteAnyDatabase", "dbAdminAnyDatabase"]);
    let reads = User::new("reads", "of-reads", &["readAnyDatabase"]);
    let stage = Stage::set(
        with_users("rs-source", vec![application.clone(), reads]),
        with_users("rs-destination", vec![User::new("reads", "of-reads", &["readAnyDatabase"])]),
        cutoverd::Config::default()
            .env("SOURCE_PASSWORD", "pass $word: \"1\"")
            .env("READS_PASSWORD", "of-reads"),
    )
    .await
    .unwrap();
    let (source, destination) =
        (stage.source.client().await.unwrap(), stage.destination.client().await.unwrap());
    create_role(&source, "blocksWrites", &["setUserWriteBlockMode"]).await;
    let create = |password: &str, roles: &[&str]| {
        doc! {
            "createUser": "migrator", "pwd": password, "roles": roles.to_vec(),
        }
    };
    let roles = ["backup", "clusterMonitor", "readAnyDatabase", "blocksWrites"];
    source.database("admin").run_command(create("pass $word: \"1\"", &roles)).await.unwrap();
    let roles = ["clusterMonitor", "readWriteAnyDatabase", "dbAdminAnyDatabase", "restore"];
    destination.database("admin").run_command(create("from-a-file", &roles)).await.unwrap();
    fill(&source, &FillOptions { documents: 1_500, ..FillOptions::default() }).await.unwrap();

    // Too little: every action that is missing is named.
    let little = stage.declaration().user("source", "reads", "READS_PASSWORD").user(
        "destination",
        "reads",
        "READS_PASSWORD",
    );
    let told = refusal(&stage, &little, "CUT0016").await;
    for part in [
        "the user on the source",
        "setUserWriteBlockMode",
        "appendOplogNote",
        "backup, clusterMonitor",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    for part in [
        "the user on the destination",
        "insert",
        "createCollection",
        "collMod",
        "readWriteAnyDatabase",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }

    let file = stage.folder().join("destination-password");
    fs::write(&file, "from-a-file\n").unwrap();
    let declaration = stage
        .declaration()
        .user("source", "migrator", "SOURCE_PASSWORD")
        .text("destination.username", "migrator")
        .set("destination.password", r#"{ file = "destination-password" }"#);
    let writing = WriterOptions { rate: 100, ..WriterOptions::default() };
    let writer =
        Writer::start(&stage.source.client_as(&application).await.unwrap(), writing).await.unwrap();
    stage.migrate(&declaration).await.unwrap();
    let stats = writer.stop().await.unwrap();
    assert!(stats.blocked_at.is_some(), "the application was locked out");
    assert_equal(&stage).await;
    assert_eq!(stats.missing_from(&destination).await.unwrap(), []);

    // No secret is anywhere that it need not be.
    let events = stage.cutover.succeed(["events", MIGRATION, "--json"]).await.unwrap().stdout;
    let status = stage.cutover.succeed(["status", "--json"]).await.unwrap().stdout;
    let mut kept = vec![
        ("events", events.into_bytes()),
        ("status", status.into_bytes()),
        ("log", stage.daemon.log().into_bytes()),
    ];
    let mut folders = vec![stage.daemon.state_folder()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path)
            } else {
                kept.push(("state", fs::read(path).unwrap()))
            }
        }
    }
    for secret in ["pass $word", "from-a-file"] {
        for (place, bytes) in &kept {
            assert!(
                !bytes.windows(secret.len()).any(|window| window == secret.as_bytes()),
                "{secret} is in the {place}"
            );
        }
    }
}

#[tokio::test]
async fn a_user_known_by_its_certificate() {
    let set = |name: &str, roles: &[&str]| Options {
        tls: Some(TlsMode::ClientCertificate),
        ..with_users(name, vec![User::x509(SUBJECT, roles)])
    };
    let stage = Stage::set(
        set("rs-source", &["backup", "clusterMonitor", "readAnyDatabase", "clusterManager"]),
        set(
            "rs-destination",
            &[
                "clusterManager",
                "clusterMonitor",
                "readWriteAnyDatabase",
                "dbAdminAnyDatabase",
                "restore",
            ],
        ),
        cutoverd::Config::default(),
    )
    .await
    .unwrap();
    let source = stage.source.client().await.unwrap();
    source.database("shop").collection("orders").insert_one(doc! { "_id": 1 }).await.unwrap();
    let by_certificate =
        |uri: String| format!("{uri}&authMechanism=MONGODB-X509&authSource=$external");
    let mut declaration = Declaration::new(
        MIGRATION,
        &by_certificate(stage.source.uri()),
        &by_certificate(stage.destination.uri()),
    );
    for (side, set) in [("source", &stage.source), ("destination", &stage.destination)] {
        let files = set.tls().unwrap();
        // A relative path is relative to the HCL.
        fs::copy(&files.ca_file, stage.folder().join(format!("{side}-ca.pem"))).unwrap();
        declaration =
            declaration.text(&format!("{side}.tls.ca_file"), &format!("{side}-ca.pem")).text(
                &format!("{side}.tls.certificate_key_file"),
                &files.client_file.display().to_string(),
            );
    }
    stage.migrate(&declaration).await.unwrap();
    assert_equal(&stage).await;
}

#[tokio::test]
async fn tls_that_fails_is_told_apart() {
    let demanding =
        Options { tls: Some(TlsMode::ClientCertificate), ..with_users("rs-source", Vec::new()) };
    let plain = Options {
        tls: Some(TlsMode::ServerCertificate),
        ..with_users("rs-destination", Vec::new())
    };
    let stage =
        Stage::set(demanding, plain, cutoverd::Config::default().env("ROOT", ROOT_PASSWORD))
            .await
            .unwrap();
    let (source, destination) = (stage.source.tls().unwrap(), stage.destination.tls().unwrap());
    let path = |path: &std::path::Path| path.display().to_string();
    let right = stage
        .declaration()
        .user("source", ROOT_USER, "ROOT")
        .user("destination", ROOT_USER, "ROOT")
        .text("source.tls.ca_file", &path(&source.ca_file))
        .text("source.tls.certificate_key_file", &path(&source.client_file))
        .text("destination.tls.ca_file", &path(&destination.ca_file));

    let wrong_authority =
        right.clone().text("destination.tls.ca_file", &path(&destination.foreign_ca_file));
    let told = refusal(&stage, &wrong_authority, "CUT0013").await;
    assert!(
        told.contains("the destination") && told.contains(&stage.destination.host(0)),
        "{told}"
    );
    let no_certificate = right.clone().without("source.tls.certificate_key_file");
    let told = refusal(&stage, &no_certificate, "CUT0013").await;
    assert!(told.contains("the source") && told.contains("certificate"), "{told}");
    let no_file = right.clone().text("source.tls.ca_file", "/no/such/ca.pem");
    assert!(refusal(&stage, &no_file, "CUT0013").await.contains("/no/such/ca.pem"));
    let no_pem = stage.folder().join("no.pem");
    fs::write(&no_pem, "this is no certificate\n").unwrap();
    let told =
        refusal(&stage, &right.clone().text("destination.tls.ca_file", &path(&no_pem)), "CUT0013")
            .await;
    assert!(told.contains("the destination") && told.contains("no.pem"), "{told}");
    // Without a tls block, where the server wants TLS.
    let unencrypted = Declaration::new(MIGRATION, &stage.source.uri(), &stage.destination.uri())
        .user("source", ROOT_USER, "ROOT")
        .user("destination", ROOT_USER, "ROOT");
    let folder = tempfile::tempdir().unwrap();
    unencrypted.write(folder.path()).unwrap();
    let output = Cutover::new(folder.path()).daemon(&stage.daemon).run(["plan"]).await.unwrap();
    assert!(
        output.code == 1
            && output.stderr.contains("error[CUT001")
            && output.stderr.contains("tls block"),
        "{output}"
    );

    // And what is right goes the whole way.
    let client = stage.source.client().await.unwrap();
    client
        .database("shop")
        .collection::<Document>("orders")
        .insert_one(doc! { "_id": 1 })
        .await
        .unwrap();
    stage.migrate(&right).await.unwrap();
    assert_equal(&stage).await;
}

#[tokio::test]
async fn a_set_without_a_primary_is_no_fault_of_tls() {
    let named = |name: &str| Options {
        name: name.to_owned(),
        tls: Some(TlsMode::ServerCertificate),
        ..Options::default()
    };
    let source = Options { members: 2, ..named("rs-source") };
    let mut stage =
        Stage::set(source, named("rs-destination"), cutoverd::Config::default()).await.unwrap();
    let mut declaration = stage.declaration();
    for (side, set) in [("source", &stage.source), ("destination", &stage.destination)] {
        declaration = declaration.text(
            &format!("{side}.tls.ca_file"),
            &set.tls().unwrap().ca_file.display().to_string(),
        );
    }
    // Of two members one elects nobody, and answers.
    let primary = stage.source.primary().await.unwrap();
    stage.source.kill_member(primary).await.unwrap();
    let told = refusal(&stage, &declaration, "CUT0012").await;
    assert!(told.contains("the source") && told.contains("no usable primary"), "{told}");
    stage.source.restart_member(primary).await.unwrap();
    stage.source.primary().await.unwrap();
    // One that hangs takes connections, and says nothing.
    stage.destination.freeze_member(0).unwrap();
    let told = refusal(&stage, &declaration, "CUT0012").await;
    assert!(told.contains("the destination"), "{told}");
    stage.destination.thaw_member(0).unwrap();
}

#[tokio::test]
async fn a_name_of_srv_records_that_does_not_resolve() {
    let stage = Stage::plain().await.unwrap();
    let uri = "mongodb+srv://orders.nowhere.invalid/?replicaSet=rs-source";
    let declaration = Declaration::new(MIGRATION, uri, &stage.destination.uri());
    declaration.write(stage.folder()).unwrap();
    stage.cutover.succeed(["validate"]).await.unwrap();
    let told = refusal(&stage, &declaration, "CUT0011").await;
    assert!(told.contains("orders.nowhere.invalid"), "{told}");
}
