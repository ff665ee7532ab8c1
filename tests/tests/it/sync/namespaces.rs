//! What is in scope arrives, nothing else is touched, and what is dropped is what the plan has
//! listed.
#![expect(clippy::unwrap_used, reason = "a test fails where something is not as it must be")]

use std::collections::BTreeSet;

use mongodb::Client;
use mongodb::bson::{Document, doc};
use rig::Stage;
use rig::compare::{Scope, compare};
use rig::scenario::MIGRATION;

/// Collections of users, the filters of the declaration below on them, and whether each is in
/// scope.
const NAMESPACES: [(&str, &str, bool); 8] = [
    ("shop", "orders", true),
    ("shop", "orders.archive", true),
    ("shop", "tmp_import", false),
    ("shop", "customers", true),
    ("crm", "contacts", true),
    ("crm", "notes", false),
    ("shops", "orders", false),
    ("audit", "log", false),
];
const INCLUDE: &str = r#"["shop.*", "crm.con*"]"#;
const EXCLUDE: &str = r#"["*.tmp_*"]"#;

/// Every user's namespace of a deployment.
async fn namespaces(client: &Client) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for db in client.list_database_names().await.unwrap() {
        if !matches!(db.as_str(), "admin" | "local" | "config") {
            let names = client.database(&db).list_collection_names().await.unwrap();
            found.extend(names.into_iter().map(|name| format!("{db}.{name}")));
        }
    }
    found
}

/// A digest of the databases that are the servers' own, but for what changes by itself or with
/// every connection.
async fn own_collections(client: &Client) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for db in ["admin", "config"] {
        let names = client.database(db).list_collection_names().await.unwrap();
        found.extend(names.into_iter().map(|name| format!("{db}.{name}")));
    }
    found
}

async fn insert(client: &Client, db: &str, name: &str, id: &str) {
    client
        .database(db)
        .collection(name)
        .insert_one(doc! { "_id": id, "of": format!("{db}.{name}") })
        .await
        .unwrap();
}

#[tokio::test]
async fn filters_hold_in_the_copy_and_in_the_tail() {
    let stage = Stage::plain().await.unwrap();
    let (source, destination) =
        (stage.source.client().await.unwrap(), stage.destination.client().await.unwrap());
    for (db, name, _) in NAMESPACES {
        insert(&source, db, name, "copied").await;
    }
    // Databases of the server's own, where administrators leave things all the same.
    insert(&source, "admin", "notes", "not to be copied").await;
    insert(&source, "config", "notes", "not to be copied").await;
    // A retryable write is refused there, a command is not.
    let local = doc! { "insert": "notes", "documents": [{ "_id": "not to be copied" }] };
    source.database("local").run_command(local).await.unwrap();
    let own = own_collections(&destination).await;
    // Out of scope on the destination: not in the way.
    insert(&destination, "audit", "mine", "kept").await;
    insert(&destination, "shop", "tmp_mine", "kept").await;

    let declaration =
        stage.declaration().set("namespaces.include", INCLUDE).set("namespaces.exclude", EXCLUDE);
    stage.apply(&declaration).await.unwrap();
    stage.wait_for("ready").await.unwrap();
    for (db, name, _) in NAMESPACES {
        insert(&source, db, name, "followed").await;
    }
    insert(&source, "shop", "later", "followed").await;
    insert(&source, "shop", "tmp_later", "followed").await;
    insert(&source, "admin", "notes", "not to be followed").await;
    insert(&source, "config", "notes", "not to be followed").await;
    // Renamed into the scope, out of it, and beside it.
    let rename = |from: &str, to: &str| doc! { "renameCollection": from, "to": to };
    for (from, to) in [
        ("audit.log", "shop.log"),
        ("shop.customers", "audit.customers"),
        ("crm.notes", "crm.other"),
    ] {
        source.database("admin").run_command(rename(from, to)).await.unwrap();
    }
    stage.acknowledge(&declaration).await.unwrap();
    stage.wait_for("completed").await.unwrap();

    let mut expected: BTreeSet<String> = NAMESPACES
        .iter()
        .filter(|(_, _, inside)| *inside)
        .map(|(db, name, _)| format!("{db}.{name}"))
        .collect();
    expected.extend(["shop.later", "shop.log", "audit.mine", "shop.tmp_mine"].map(str::to_owned));
    expected.remove("shop.customers");
    assert_eq!(namespaces(&destination).await, expected);
    let new: Vec<String> = own_collections(&destination).await.difference(&own).cloned().collect();
    assert!(!new.iter().any(|name| name.contains("notes") || name.contains("cutover")), "{new:?}");
    let scope = Scope {
        include: vec!["shop.*".to_owned(), "crm.con*".to_owned()],
        exclude: vec!["*.tmp_*".to_owned()],
    };
    let report = compare(&source, &destination, &scope).await.unwrap();
    assert!(report.is_equal(), "{report}");
    for (db, name) in [("audit", "mine"), ("shop", "tmp_mine")] {
        let kept = destination
            .database(db)
            .collection::<Document>(name)
            .find_one(doc! { "_id": "kept" })
            .await
            .unwrap();
        assert!(kept.is_some(), "{db}.{name}");
    }
}

#[tokio::test]
async fn existing_data_is_dropped_in_scope_alone_and_as_the_plan_lists_it() {
    let stage = Stage::plain().await.unwrap();
    let (source, destination) =
        (stage.source.client().await.unwrap(), stage.destination.client().await.unwrap());
    insert(&source, "shop", "orders", "new").await;
    for (db, name, _) in NAMESPACES {
        insert(&destination, db, name, "old").await;
    }
    destination
        .database("shop")
        .run_command(doc! { "create": "a_view", "viewOn": "orders", "pipeline": [] })
        .await
        .unwrap();
    insert(&destination, "admin", "notes", "old").await;

    let declaration = stage
        .declaration()
        .set("namespaces.include", INCLUDE)
        .set("namespaces.exclude", EXCLUDE)
        .text("destination.existing_data", "refuse");
    declaration.write(stage.folder()).unwrap();
    let refused = stage.cutover.run(["plan"]).await.unwrap();
    assert!(refused.code == 1 && refused.stderr.contains("error[CUT0018]"), "{refused}");

    let declaration = declaration.text("destination.existing_data", "drop");
    declaration.write(stage.folder()).unwrap();
    let plan = stage.cutover.succeed(["plan", "--json"]).await.unwrap().json().unwrap();
    let effects: Vec<&str> = plan["changes"][0]["effects"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one.as_str().unwrap())
        .collect();
    let drops = effects.iter().find(|effect| effect.starts_with("drops ")).unwrap();
    let dropped: BTreeSet<String> =
        drops.split_once(": ").unwrap().1.split(", ").map(str::to_owned).collect();
    let mut in_scope: BTreeSet<String> = NAMESPACES
        .iter()
        .filter(|(_, _, inside)| *inside)
        .map(|(db, name, _)| format!("{db}.{name}"))
        .collect();
    in_scope.insert("shop.a_view".to_owned());
    assert_eq!(dropped, in_scope, "{drops}");
    assert!(namespaces(&destination).await.is_superset(&in_scope), "a plan drops nothing");

    stage.migrate(&declaration).await.unwrap();
    let expected: BTreeSet<String> =
        ["shop.orders", "shop.tmp_import", "crm.notes", "shops.orders", "audit.log"]
            .map(str::to_owned)
            .into();
    assert_eq!(namespaces(&destination).await, expected);
    let left = destination.database("shop").collection::<Document>("orders");
    assert_eq!(left.distinct("_id", doc! {}).await.unwrap(), ["new".into()]);
    assert_eq!(
        destination
            .database("admin")
            .collection::<Document>("notes")
            .count_documents(doc! {})
            .await
            .unwrap(),
        1
    );
    assert_eq!(stage.cutover.status(MIGRATION).await.unwrap()["phase"], "completed");
}

#[tokio::test]
async fn no_pattern_names_the_servers_own_databases() {
    let stage = Stage::plain().await.unwrap();
    let (source, destination) =
        (stage.source.client().await.unwrap(), stage.destination.client().await.unwrap());
    insert(&source, "shop", "orders", "copied").await;
    insert(&source, "admin", "notes", "not to be copied").await;
    let declaration = stage.declaration().set("namespaces.include", r#"["*.*"]"#);
    stage.apply(&declaration).await.unwrap();
    stage.wait_for("ready").await.unwrap();
    // While it goes on, the run's own note is beside them.
    let found: Vec<String> = namespaces(&destination)
        .await
        .into_iter()
        .filter(|name| !name.starts_with("cutover_internal."))
        .collect();
    assert_eq!(found, ["shop.orders"]);
    assert_eq!(
        destination
            .database("admin")
            .collection::<Document>("notes")
            .count_documents(doc! {})
            .await
            .unwrap(),
        0
    );
    // Named outright.
    let other = tempfile::tempdir().unwrap();
    stage.declaration().set("namespaces.include", r#"["admin.*"]"#).write(other.path()).unwrap();
    let told = rig::Cutover::new(other.path()).run(["validate"]).await.unwrap();
    assert!(
        told.code == 0 && told.stderr.contains("warning: \"admin.*\" includes nothing"),
        "{told}"
    );
}
