//! Every example, planned by the real programs: its hosts and secrets put in for those that it
//! names, and nothing else changed.
#![expect(clippy::unwrap_used, reason = "a test fails where something is not as it must be")]

use std::fs;
use std::path::Path;

use mongodb::bson::doc;
use rig::{
    Auth, ClusterOptions, Cutover, Cutoverd, Options, Output, ShardedCluster, Stage, TlsMode, User,
    cutoverd, programs,
};

const PASSWORD: &str = "of-the-migrator";
const ROLES: [&str; 7] = [
    "readAnyDatabase",
    "clusterMonitor",
    "backup",
    "readWriteAnyDatabase",
    "dbAdminAnyDatabase",
    "restore",
    "userAdminAnyDatabase",
];

fn with_user(name: &str, user: User, tls: Option<TlsMode>) -> Options {
    Options {
        name: name.to_owned(),
        auth: Some(Auth { users: vec![user] }),
        tls,
        ..Options::default()
    }
}

/// Copies an example with some of its texts replaced, each of which must be there.
fn copied(name: &str, into: &Path, replaced: &[(&str, &str)]) {
    let example = programs::workspace_folder().join("examples").join(name);
    let mut met = vec![false; replaced.len()];
    for entry in fs::read_dir(example).unwrap() {
        let path = entry.unwrap().path();
        let mut text = fs::read_to_string(&path).unwrap();
        for ((from, to), met) in replaced.iter().zip(&mut met) {
            *met |= text.contains(from);
            text = text.replace(from, to);
        }
        fs::write(into.join(path.file_name().unwrap()), text).unwrap();
    }
    for ((from, _), met) in replaced.iter().zip(met) {
        assert!(met, "{name} does not name {from}");
    }
}

/// Plans an example; everything in it is to be created, and no check fails.
async fn planned(
    daemon: &Cutoverd,
    name: &str,
    replaced: &[(&str, &str)],
    creates: usize,
) -> Output {
    let folder = tempfile::tempdir().unwrap();
    copied(name, folder.path(), replaced);
    let cutover = Cutover::new(folder.path()).daemon(daemon);
    cutover.succeed(["fmt", "--check"]).await.unwrap();
    let preflight = cutover.succeed(["preflight"]).await.unwrap();
    assert!(!preflight.stdout.contains("fail"), "{name}: {preflight}");
    let plan = cutover.run(["plan", "--detailed-exitcode"]).await.unwrap();
    assert!(
        plan.code == 2 && plan.stdout.contains(&format!("Plan: {creates} to create, 0 to change")),
        "{name}: {plan}"
    );
    plan
}

#[tokio::test]
async fn examples_with_passwords_are_planned() {
    let migrator = || User::new("migrator", PASSWORD, &ROLES);
    let variables = ["ORDERS_SOURCE_PASSWORD", "ORDERS_DESTINATION_PASSWORD", "SHARED_PASSWORD"];
    let daemon = variables
        .iter()
        .fold(cutoverd::Config::default(), |daemon, name| daemon.env(name, PASSWORD));
    let stage = Stage::set(
        with_user("rs-source", migrator(), None),
        with_user("rs-destination", migrator(), None),
        daemon,
    )
    .await
    .unwrap();
    let client = stage.source.client().await.unwrap();
    for db in ["shop", "billing", "acme", "globe"] {
        client.database(db).collection("things").insert_one(doc! { "_id": 1 }).await.unwrap();
    }
    let secrets = tempfile::tempdir().unwrap();
    fs::create_dir(secrets.path().join("tenants")).unwrap();
    for name in ["shop-source", "shop-destination", "tenants/acme", "tenants/globe"] {
        fs::write(secrets.path().join(name), PASSWORD).unwrap();
    }
    let (source, destination, secrets) =
        (stage.source.uri(), stage.destination.uri(), secrets.path().display().to_string());

    let uri =
        "mongodb://orders-1.old.example.net:27017,orders-2.old.example.net:27017/?replicaSet=rs0";
    planned(
        &stage.daemon,
        "minimal",
        &[(uri, &source), ("mongodb+srv://orders.new.example.net", &destination)],
        1,
    )
    .await;

    let uris = [
        ("mongodb://orders-a.example.net:27017/?replicaSet=orders-a", source.as_str()),
        ("mongodb://orders-b.example.net:27017/?replicaSet=orders-b", destination.as_str()),
    ];
    planned(&stage.daemon, "orders", &uris, 1).await;

    let shop = [
        ("mongodb://${join(\",\", local.source_hosts)}/?replicaSet=shop", source.as_str()),
        ("mongodb+srv://shop.new.example.net", destination.as_str()),
        ("/run/secrets", secrets.as_str()),
    ];
    let plan = planned(&stage.daemon, "filtered", &shop, 1).await;
    for words in ["shop-staging", "\"inventory.*\"", "2 collections", "\"drop\""] {
        assert!(plan.stdout.contains(words), "{words}: {plan}");
    }

    let tenants = [
        (
            "mongodb://shared-0.example.net:27017,shared-1.example.net:27017/?replicaSet=shared",
            source.as_str(),
        ),
        ("mongodb+srv://${each.value.host}", destination.as_str()),
        ("/run/secrets", secrets.as_str()),
    ];
    let plan = planned(&stage.daemon, "many", &tenants, 2).await;
    for words in ["tenant-acme", "tenant-globe", "\"acme_reports.*\"", "\"120h\""] {
        assert!(plan.stdout.contains(words), "{words}: {plan}");
    }
}

#[tokio::test]
async fn the_example_with_certificates_is_planned() {
    let source = with_user(
        "ledger",
        User::new("migrator", PASSWORD, &ROLES),
        Some(TlsMode::ServerCertificate),
    );
    let of_certificate = User::x509("CN=migrator,OU=clients,O=cutover", &ROLES);
    let destination = with_user("ledger", of_certificate, Some(TlsMode::ClientCertificate));
    let stage = Stage::set(
        source,
        destination,
        cutoverd::Config::default().env("LEDGER_SOURCE_PASSWORD", PASSWORD),
    )
    .await
    .unwrap();
    let client = stage.source.client().await.unwrap();
    client.database("ledger").collection("entries").insert_one(doc! { "_id": 1 }).await.unwrap();
    let (of_source, of_destination) =
        (stage.source.tls().unwrap(), stage.destination.tls().unwrap());
    let path = |path: &Path| path.display().to_string();
    let hosts = [stage.source.host(0), stage.destination.host(0)];
    let plan = planned(
        &stage.daemon,
        "tls",
        &[
            ("ledger.old.example.net:27017", &hosts[0]),
            ("ledger.new.example.net:27017", &hosts[1]),
            ("certs/source-ca.pem", &path(&of_source.ca_file)),
            ("certs/destination-ca.pem", &path(&of_destination.ca_file)),
            ("/etc/cutover/ledger-client.pem", &path(&of_destination.client_file)),
        ],
        1,
    )
    .await;
    assert!(plan.stdout.contains("reads 1 collection with 1 document"), "{plan}");
}

#[tokio::test]
async fn the_example_of_sharded_clusters_is_planned() {
    let (source, destination, daemon) = tokio::try_join!(
        ShardedCluster::start(ClusterOptions::shards(2)),
        ShardedCluster::start(ClusterOptions::shards(2)),
        Cutoverd::start(cutoverd::Config::default())
    )
    .unwrap();
    source.create_database("shop", 0).await.unwrap();
    source.shard_collection("shop.orders", doc! { "_id": "hashed" }, Some(4)).await.unwrap();
    let orders = source.client().await.unwrap().database("shop").collection("orders");
    orders.insert_many((0..50).map(|n| doc! { "_id": n, "customer": n % 7 })).await.unwrap();
    let with_login = |side: &str, variable: &str| {
        format!(
            "    uri      = var.{side}_uri\n    username = \"migrator\"\n    password = {{ env = \
             \"SHOP_{variable}_PASSWORD\" }}\n"
        )
    };
    let plan = planned(
        &daemon,
        "sharded",
        &[
            ("mongodb://mongos-1.example.net:27017,mongos-2.example.net:27017", &source.uri()),
            ("mongodb://new-mongos.example.net:27017", &destination.uri()),
            // These have no access control.
            (&with_login("source", "SOURCE"), "    uri = var.source_uri\n"),
            (&with_login("destination", "DESTINATION"), "    uri = var.destination_uri\n"),
        ],
        1,
    )
    .await;
    for words in ["customer: 1, _id: hashed", "balancer", "shard-0", "shard-1"] {
        assert!(plan.stdout.contains(words), "{words}: {plan}");
    }
}
