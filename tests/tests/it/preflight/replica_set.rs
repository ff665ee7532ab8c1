//! Live checks that fail, or tell, for a reason of their own; those of reaching a side, of
//! privileges, of what is there and of what cannot be carried are held elsewhere.
#![expect(clippy::unwrap_used, reason = "a test fails where something is not as it must be")]

use std::collections::BTreeSet;

use mongodb::Client;
use mongodb::bson::{Document, doc};
use rig::ports::ReservedPort;
use rig::replica_set::{ROOT_PASSWORD, ROOT_USER};
use rig::scenario::MIGRATION;
use rig::syscall_shim::Deceit;
use rig::{Auth, Cutover, Declaration, Options, Stage, cutoverd};
use serde_json::{Value, json};

fn named(name: &str) -> Options {
    Options { name: name.to_owned(), ..Options::default() }
}

/// One check as `cutover preflight --json` reports it.
#[derive(Debug)]
struct Check {
    name: String,
    outcome: String,
    message: String,
    code: Value,
    remedy: Value,
}

/// The checks of every migration that is declared, and the exit code.
async fn all_checks(cutover: &Cutover) -> (i32, Vec<(String, Vec<Check>)>) {
    let output = cutover.run(["preflight", "--json"]).await.unwrap();
    let document = output.json().unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let of = |one: &Value| {
        let checks = one["checks"].as_array().unwrap().iter().map(|one| Check {
            name: text(&one["name"]),
            outcome: text(&one["outcome"]),
            message: text(&one["message"]),
            code: one["code"].clone(),
            remedy: one["remedy"].clone(),
        });
        (text(&one["migration"]), checks.collect())
    };
    (output.code, document["preflight"].as_array().unwrap().iter().map(of).collect())
}

async fn checks(cutover: &Cutover) -> (i32, Vec<Check>) {
    let (code, mut all) = all_checks(cutover).await;
    assert_eq!(all.len(), 1, "{all:#?}");
    (code, all.remove(0).1)
}

/// The one check of a name.
#[track_caller]
fn named_check<'a>(checks: &'a [Check], name: &str) -> &'a Check {
    let mut found = checks.iter().filter(|check| check.name == name);
    match (found.next(), found.next()) {
        (Some(check), None) => check,
        _ => panic!("{name} is not once among {checks:#?}"),
    }
}

/// Holds that one check alone ends in this way, with these words, in JSON and in text; others are
/// `ok`, but for those in `besides`.
async fn only(
    cutover: &Cutover,
    name: &str,
    outcome: &str,
    code: Option<&str>,
    words: &[&str],
    besides: &[&str],
) {
    let (exit, all) = checks(cutover).await;
    let others: Vec<&Check> = all
        .iter()
        .filter(|one| {
            one.outcome != "ok" && one.name != name && !besides.contains(&one.name.as_str())
        })
        .collect();
    assert!(others.is_empty(), "besides {name}: {others:#?}");
    let check = named_check(&all, name);
    assert_eq!(exit, i32::from(outcome == "fail"), "{check:?}");
    assert!(check.outcome == outcome && check.code == json!(code), "{check:?}");
    assert!(check.remedy.as_str().is_some_and(|remedy| !remedy.is_empty()), "{check:?}");
    let text = cutover.run(["preflight"]).await.unwrap();
    for words in words {
        assert!(
            check.message.contains(words) && text.stdout.contains(words),
            "{words}: {check:?} {text}"
        );
    }
    assert!(text.stdout.contains("remedy: "), "{text}");
    if let Some(code) = code {
        // Neither a plan nor an application of it goes past it.
        for command in [&["plan"][..], &["apply", "--auto-approve"]] {
            let told = cutover.run(command).await.unwrap();
            assert!(
                told.code == 1 && told.stderr.contains(&format!("error[{code}]")),
                "{command:?}: {told}"
            );
        }
    }
}

/// Two deployments without access control: what that alone is warned of.
const OPEN: &[&str] = &["destination_write_block"];

async fn admin(client: &Client, command: Document) {
    client.database("admin").run_command(command).await.unwrap();
}

#[tokio::test]
async fn what_is_around_the_data_is_checked() {
    let stage = Stage::plain().await.unwrap();
    let (source, destination) =
        (stage.source.client().await.unwrap(), stage.destination.client().await.unwrap());
    source.database("shop").collection("orders").insert_one(doc! { "_id": 1 }).await.unwrap();
    stage.declaration().write(stage.folder()).unwrap();
    let cutover = &stage.cutover;
    let (code, all) = checks(cutover).await;
    assert_eq!(code, 0, "{all:#?}");
    for (name, words) in [
        ("feature_compatibility", "6.0 on the source, 6.0 on the destination"),
        ("clock_skew", "agree"),
        (
            "addresses",
            "the source sees this daemon at 127.0.0.1; the destination sees this daemon at \
             127.0.0.1",
        ),
        ("destination_disk", "free"),
        ("oplog_window", "the oplog of rs-source holds"),
        ("index_limits", "0 indexes"),
        ("unique_indexes", "0 unique indexes"),
        ("write_block", "can block writes"),
        ("namespaces", "1 collection and 0 views"),
    ] {
        let check = named_check(&all, name);
        assert!(check.outcome == "ok" && check.message.contains(words), "{check:?}");
    }

    // The destination's features, and what the source's own block of writes needs.
    let lower = |to: &str| doc! { "setFeatureCompatibilityVersion": to };
    admin(&destination, lower("5.0")).await;
    only(
        cutover,
        "feature_compatibility",
        "fail",
        Some("CUT0020"),
        &["is 5.0, below the source's 6.0"],
        OPEN,
    )
    .await;
    admin(&source, lower("5.0")).await;
    only(
        cutover,
        "write_block",
        "fail",
        Some("CUT0028"),
        &["compatibility version 5.0", "needs 6.0"],
        OPEN,
    )
    .await;
    admin(&source, lower("6.0")).await;
    admin(&destination, lower("6.0")).await;

    // Somebody has blocked writes already.
    let block = |on: bool| doc! { "setUserWriteBlockMode": 1, "global": on };
    admin(&destination, block(true)).await;
    only(
        cutover,
        "destination_write_block",
        "fail",
        Some("CUT0028"),
        &["blocked already, by no run"],
        &[],
    )
    .await;
    admin(&destination, block(false)).await;
    admin(&source, block(true)).await;
    only(cutover, "write_block", "warn", None, &["blocked already", "opens the source"], OPEN)
        .await;
    admin(&source, block(false)).await;

    // What a server does not tell is told, and is not well.
    let refuse = |command: &str, app: &str| {
        let data = doc! { "failCommands": [command], "errorCode": 13, "appName": app };
        doc! { "configureFailPoint": "failCommand", "mode": "alwaysOn", "data": data }
    };
    let off = doc! { "configureFailPoint": "failCommand", "mode": "off" };
    for (client, command, name, words) in [
        (&destination, "dbStats", "destination_disk", "does not tell how much room"),
        (&destination, "getParameter", "feature_compatibility", "may not be read on both sides"),
        (&source, "serverStatus", "write_block", "may not be read"),
        (&source, "whatsmyuri", "addresses", "does not tell from which address"),
    ] {
        admin(client, refuse(command, "cutover")).await;
        only(cutover, name, "warn", None, &[words], OPEN).await;
        admin(client, off.clone()).await;
    }
    assert_eq!(checks(cutover).await.0, 0);
}

#[tokio::test]
async fn an_address_for_the_firewall_is_told_of_a_side_that_is_out_of_reach() {
    let stage = Stage::plain().await.unwrap();
    let free = ReservedPort::take().unwrap();
    let down = format!("mongodb://127.0.0.1:{}/?replicaSet=rs-source", free.number());
    Declaration::new(MIGRATION, &down, &stage.destination.uri()).write(stage.folder()).unwrap();
    only(
        &stage.cutover,
        "source_reachable",
        "fail",
        Some("CUT0012"),
        &["cannot connect to the source"],
        OPEN,
    )
    .await;
    let (_, all) = checks(&stage.cutover).await;
    let told = named_check(&all, "addresses");
    assert!(
        told.outcome == "ok" && told.message.contains("goes to the source from 127.0.0.1"),
        "{told:?}"
    );
}

#[tokio::test]
async fn a_clock_that_is_wrong_and_a_disk_that_is_full() {
    let folder = tempfile::tempdir().unwrap();
    let deceit = Deceit { clock_ahead_seconds: 300, disk_free_bytes: Some(1_000_000) };
    let environment = deceit.environment(folder.path()).unwrap();
    let destination = Options { environment, ..named("rs-destination") };
    let stage =
        Stage::set(named("rs-source"), destination, cutoverd::Config::default()).await.unwrap();
    let source = stage.source.client().await.unwrap();
    let documents = (0..4).map(|id| doc! { "_id": id, "text": "x".repeat(500_000) });
    source.database("shop").collection("orders").insert_many(documents).await.unwrap();
    stage.declaration().write(stage.folder()).unwrap();
    // Both sides are asked one shortly after the other.
    let words = ["the destination's clock is ", "s ahead of the source's"];
    only(
        &stage.cutover,
        "clock_skew",
        "warn",
        None,
        &words,
        &["destination_write_block", "destination_disk"],
    )
    .await;
    let words = ["the destination has 0.0 GB free, and the documents are 0.0 GB"];
    only(
        &stage.cutover,
        "destination_disk",
        "warn",
        None,
        &words,
        &["destination_write_block", "clock_skew"],
    )
    .await;
}

#[tokio::test]
async fn an_oplog_that_rolls_over_before_the_copy_ends() {
    let source = Options { oplog_mb: 1, ..named("rs-source") };
    let stage =
        Stage::set(source, named("rs-destination"), cutoverd::Config::default()).await.unwrap();
    let client = stage.source.client().await.unwrap();
    let orders = client.database("shop").collection("orders");
    for part in 0..40 {
        let documents =
            (0..2_000).map(|id| doc! { "_id": part * 2_000 + id, "text": "x".repeat(1_000) });
        orders.insert_many(documents).await.unwrap();
    }
    stage.declaration().write(stage.folder()).unwrap();
    // As if each batch came over a thin line: a batch holds a fortieth of what is there, and takes
    // far longer than the oplog lasts.
    let slow = doc! {
        "failCommands": ["find"], "namespace": "shop.orders", "blockConnection": true,
        "blockTimeMS": 4_000,
    };
    admin(&client, doc! { "configureFailPoint": "failCommand", "mode": "alwaysOn", "data": slow })
        .await;
    let words =
        ["the oplog of rs-source holds", "s at the least: what is written meanwhile would be lost"];
    only(&stage.cutover, "oplog_window", "fail", Some("CUT0024"), &words, OPEN).await;
}

/// Lets documents into a collection past its indexes, as a server that has lost entries of one.
async fn insert_past_the_indexes(client: &Client, collection: &str, documents: Vec<Document>) {
    let fail_point = |mode: &str| {
        let data = doc! { "nss": format!("shop.{collection}") };
        doc! { "configureFailPoint": "skipIndexNewRecords", "mode": mode, "data": data }
    };
    admin(client, fail_point("alwaysOn")).await;
    client.database("shop").collection(collection).insert_many(documents).await.unwrap();
    admin(client, fail_point("off")).await;
}

#[tokio::test]
async fn unique_indexes_that_the_data_breaks_are_named_with_the_documents() {
    let stage = Stage::plain().await.unwrap();
    let client = stage.source.client().await.unwrap();
    let shop = client.database("shop");
    let unique = |key: Document, name: &str, more: Document| {
        let mut index = doc! { "key": key, "name": name, "unique": true };
        index.extend(more);
        index
    };
    let make = async |collection: &str, index: Document, documents: Vec<Document>| {
        shop.run_command(doc! { "createIndexes": collection, "indexes": [index] }).await.unwrap();
        shop.collection(collection).insert_many(documents).await.unwrap();
    };
    let folded = doc! { "collation": { "locale": "en", "strength": 2 } };
    let partial = doc! { "partialFilterExpression": { "live": true } };
    make(
        "plain",
        unique(doc! { "sku": 1 }, "sku", doc! {}),
        vec![
            doc! { "_id": 1, "sku": "a" },
            doc! { "_id": 2, "sku": "A" },
            doc! { "_id": 3 },
            doc! { "_id": 4, "sku": [] },
        ],
    )
    .await;
    make(
        "many",
        unique(doc! { "shop": 1, "codes.code": -1 }, "codes", doc! {}),
        vec![
            doc! { "_id": 1, "shop": 1, "codes": [{ "code": 1 }, { "code": 1 }, { "code": 2 }] },
            doc! { "_id": 2, "shop": 2, "codes": [{ "code": 1 }] },
        ],
    )
    .await;
    make(
        "folded",
        unique(doc! { "name": 1 }, "name", folded),
        vec![doc! { "_id": 1, "name": "Ada" }],
    )
    .await;
    make(
        "sparse",
        unique(doc! { "mail": 1 }, "mail", doc! { "sparse": true }),
        vec![doc! { "_id": 1 }, doc! { "_id": 2 }],
    )
    .await;
    make(
        "partial",
        unique(doc! { "n": 1 }, "n", partial),
        vec![
            doc! { "_id": 1, "n": 1, "live": true },
            doc! { "_id": 2, "n": 1 },
            doc! { "_id": 3, "n": 1, "live": false },
        ],
    )
    .await;
    make("numbers", unique(doc! { "n": 1 }, "n", doc! {}), vec![doc! { "_id": 1, "n": 7 }]).await;
    make(
        "placed",
        unique(doc! { "a.0": 1 }, "first", doc! {}),
        vec![doc! { "_id": 1, "a": [1] }, doc! { "_id": 2, "a": [2] }],
    )
    .await;
    // The server holds them: an array within an array is a value to the index, and nothing to an
    // aggregation.
    make(
        "seeming",
        unique(doc! { "s.x": 1 }, "s", doc! {}),
        vec![
            doc! { "_id": 1, "s": { "x": null } },
            doc! { "_id": 2, "s": { "x": [[1]] } },
            doc! { "_id": 3, "s": { "x": [[2]] } },
        ],
    )
    .await;
    stage.declaration().write(stage.folder()).unwrap();
    // Nothing is broken yet; one index is read in a way of its own, which is said.
    let words = [
        "shop.placed index first (2 documents: its keys cannot be read in this way)",
        "shop.seeming index s (_id 1 and _id 3 may have the same key)",
    ];
    only(&stage.cutover, "unique_indexes", "warn", None, &words, OPEN).await;

    for (collection, document) in [
        ("plain", doc! { "_id": 5, "sku": "a" }),
        ("plain", doc! { "_id": "six", "sku": null }),
        ("many", doc! { "_id": 3, "shop": 1, "codes": [{ "code": 9 }, { "code": 2 }] }),
        ("folded", doc! { "_id": 2, "name": "ADA" }),
        ("sparse", doc! { "_id": 3, "mail": "m" }),
        ("sparse", doc! { "_id": 4, "mail": "m" }),
        ("partial", doc! { "_id": 4, "n": 1, "live": true }),
        ("numbers", doc! { "_id": 2, "n": 7.0 }),
    ] {
        insert_past_the_indexes(&client, collection, vec![document]).await;
    }
    let words = [
        "shop.plain index sku is unique, and _id 1 and _id 5 have the same key",
        "shop.plain index sku is unique, and _id 3 and _id \"six\" have the same key",
        "shop.many index codes is unique, and _id 1 and _id 3 have the same key",
        "shop.folded index name is unique, and _id 1 and _id 2 have the same key",
        "shop.sparse index mail is unique, and _id 3 and _id 4 have the same key",
        "shop.partial index n is unique, and _id 1 and _id 4 have the same key",
        "shop.numbers index n is unique, and _id 1 and _id 2 have the same key",
    ];
    only(&stage.cutover, "unique_indexes", "fail", Some("CUT0026"), &words, OPEN).await;
    let (_, all) = checks(&stage.cutover).await;
    assert_eq!(
        named_check(&all, "unique_indexes").message.matches("have the same key").count(),
        7,
        "{all:#?}"
    );

    // A scan that takes too long is given up, and said to be: of the looks at a collection the
    // second, after that for its size.
    for collection in ["plain", "many", "folded", "sparse", "partial", "numbers", "seeming"] {
        shop.collection::<Document>(collection).drop().await.unwrap();
    }
    let slow = doc! { "failCommands": ["aggregate"], "errorCode": 50, "namespace": "shop.slow" };
    make("slow", unique(doc! { "n": 1 }, "n", doc! {}), vec![doc! { "_id": 1, "n": 7 }]).await;
    admin(
        &client,
        doc! { "configureFailPoint": "failCommand", "mode": { "skip": 1 }, "data": slow },
    )
    .await;
    let (_, all) = checks(&stage.cutover).await;
    let told = named_check(&all, "unique_indexes");
    assert!(
        told.outcome == "warn" && told.message.contains("shop.slow index n (1 documents"),
        "{told:?}"
    );

    // One that is dropped while it is looked at keeps nothing out.
    shop.collection::<Document>("slow").drop().await.unwrap();
    make("dropped", unique(doc! { "n": 1 }, "n", doc! {}), vec![doc! { "_id": 1, "n": 7 }]).await;
    let late = doc! {
        "failCommands": ["aggregate"], "blockConnection": true, "blockTimeMS": 500,
        "namespace": "shop.dropped",
    };
    let set = doc! { "configureFailPoint": "failCommand", "mode": { "skip": 1 }, "data": late };
    let entered =
        client.database("admin").run_command(set).await.unwrap().get_i32("count").unwrap();
    let ((_, all), ()) = tokio::join!(checks(&stage.cutover), async {
        let entered = doc! {
            "waitForFailPoint": "failCommand", "timesEntered": entered + 1, "maxTimeMS": 60_000,
        };
        admin(&client, entered).await;
        let dropped = shop.collection("dropped");
        dropped.drop_index("n").await.unwrap();
        dropped.insert_one(doc! { "_id": 2, "n": 7 }).await.unwrap();
    });
    let told = named_check(&all, "unique_indexes");
    assert!(told.outcome != "fail" && !told.message.contains("the same key"), "{told:?}");
}

/// A role of this name with the actions, as preflight names them, and its user.
async fn grant(client: &Client, name: &str, actions: &BTreeSet<String>) {
    let on_cluster = ["listDatabases", "appendOplogNote", "setUserWriteBlockMode"];
    let (cluster, anywhere): (Vec<&str>, Vec<&str>) =
        actions.iter().map(String::as_str).partition(|action| on_cluster.contains(action));
    let mut privileges = Vec::new();
    if !anywhere.is_empty() {
        privileges.push(doc! { "resource": { "db": "", "collection": "" }, "actions": anywhere });
    }
    if !cluster.is_empty() {
        privileges.push(doc! { "resource": { "cluster": true }, "actions": cluster });
    }
    admin(client, doc! { "createRole": name, "privileges": privileges, "roles": [] }).await;
    admin(
        client,
        doc! {
            "createUser": name, "pwd": "of-it", "roles": [name], "mechanisms": ["SCRAM-SHA-256"],
        },
    )
    .await;
}

/// The actions that a failed check says are missing.
fn missing(check: &Check) -> BTreeSet<String> {
    let (_, actions) = check.message.split_once("may not: ").unwrap_or_else(|| panic!("{check:?}"));
    actions.split(", ").map(str::to_owned).collect()
}

#[tokio::test]
async fn every_privilege_that_is_missing_is_told_alone_and_those_that_are_told_suffice() {
    let protected = |name: &str| Options { auth: Some(Auth::default()), ..named(name) };
    let environment = cutoverd::Config::default().env("OF_IT", "of-it").env("ROOT", ROOT_PASSWORD);
    let mut stage =
        Stage::set(protected("rs-source"), protected("rs-destination"), environment).await.unwrap();
    let (source, destination) =
        (stage.source.client().await.unwrap(), stage.destination.client().await.unwrap());
    let orders: Vec<Document> = (0..100).map(|id| doc! { "_id": id, "customer": id % 7 }).collect();
    source.database("shop").collection("orders").insert_many(orders).await.unwrap();
    let index = doc! { "key": { "customer": 1, "_id": 1 }, "name": "customer", "unique": true };
    source
        .database("shop")
        .run_command(doc! { "createIndexes": "orders", "indexes": [index] })
        .await
        .unwrap();

    // Users who may do nothing are told everything.
    for client in [&source, &destination] {
        grant(client, "nobody", &BTreeSet::new()).await;
    }
    let declared = |name: &str, of_source: &str, of_destination: &str| {
        let password = |user: &str| if user == ROOT_USER { "ROOT" } else { "OF_IT" };
        Declaration::new(name, &stage.source.uri(), &stage.destination.uri())
            .user("source", of_source, password(of_source))
            .user("destination", of_destination, password(of_destination))
    };
    declared("nothing", "nobody", "nobody").write(stage.folder()).unwrap();
    let (_, all) = all_checks(&stage.cutover).await;
    let needed = ["source", "destination"]
        .map(|side| missing(named_check(&all[0].1, &format!("{side}_privileges"))));
    assert!(needed[0].len() >= 8 && needed[1].len() >= 13, "{needed:?}");
    let nothing = all.into_iter().next().unwrap().1;
    std::fs::remove_file(stage.folder().join("nothing.hcl")).unwrap();

    // All but one, for each of them.
    for (side, client, actions) in
        [("source", &source, &needed[0]), ("destination", &destination, &needed[1])]
    {
        for action in actions {
            let name = format!("no-{}", action.to_lowercase());
            let others = actions.iter().filter(|other| *other != action).cloned().collect();
            grant(client, &name, &others).await;
            let (of_source, of_destination) = if side == "source" {
                (name.as_str(), ROOT_USER)
            } else {
                (ROOT_USER, name.as_str())
            };
            declared(&format!("{side}-{name}"), of_source, of_destination)
                .write(stage.folder())
                .unwrap();
        }
    }
    let (code, all) = all_checks(&stage.cutover).await;
    assert!(code == 1 && all.len() == needed[0].len() + needed[1].len(), "{all:#?}");
    for (migration, checks) in &all {
        let (side, action) = migration.split_once("-no-").unwrap();
        let check = named_check(checks, &format!("{side}_privileges"));
        assert!(check.outcome == "fail" && check.code == "CUT0016", "{migration}: {check:?}");
        let told: Vec<String> =
            missing(check).into_iter().map(|action| action.to_lowercase()).collect();
        assert_eq!(told, [action], "{migration}: {check:?}");
        let other = if side == "source" { "destination" } else { "source" };
        assert_eq!(
            named_check(checks, &format!("{other}_privileges")).outcome,
            "ok",
            "{migration}"
        );
    }
    for entry in std::fs::read_dir(stage.folder()).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }

    // And with exactly those that are told it goes the whole way.
    grant(&source, "least", &needed[0]).await;
    let oplog = named_check(&nothing, "writes_by_apply_ops");
    assert!(oplog.code == "CUT0016" && oplog.message.contains("local.oplog.rs"), "{oplog:?}");
    let find = doc! {
        "resource": { "db": "local", "collection": "oplog.rs" }, "actions": ["find"],
    };
    admin(&source, doc! { "grantPrivilegesToRole": "least", "privileges": [find] }).await;
    grant(&destination, "least", &needed[1]).await;
    let declaration = declared(MIGRATION, "least", "least");
    stage.migrate(&declaration).await.unwrap();
    let copied = destination
        .database("shop")
        .collection::<Document>("orders")
        .count_documents(doc! {})
        .await
        .unwrap();
    assert_eq!(copied, 100);
    stage.daemon.terminate().await.unwrap();
}
