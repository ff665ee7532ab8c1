//! Clusters that speak TLS alone: the daemon reaches routers and shards by the same settings, and a
//! shard whose certificate does not hold is told as what it is.

use mongodb::bson::{Document, doc};
use rig::replica_set::{ROOT_PASSWORD, ROOT_USER};
use rig::tls::{Certificate, TlsFiles};
use rig::{Auth, ClusterOptions, Declaration, Options, TlsMode, cutoverd};
use serde_json::Value;

use super::scene::{Destination, Scene};

fn environment() -> cutoverd::Config {
    cutoverd::Config::default().env("ROOT", ROOT_PASSWORD)
}

/// Declares an authority and a client's certificate for one side.
fn with_files(declaration: Declaration, side: &str, files: &TlsFiles) -> Declaration {
    let path = |path: &std::path::Path| path.display().to_string();
    declaration
        .text(&format!("{side}.tls.ca_file"), &path(&files.ca_file))
        .text(&format!("{side}.tls.certificate_key_file"), &path(&files.client_file))
}

impl Scene {
    /// The checks of a declaration about the source's shards.
    async fn shards(&self, declaration: &Declaration) -> Vec<Value> {
        declaration.write(self.cutover.folder()).unwrap();
        let document = self.cutover.run(["preflight", "--json"]).await.unwrap().json().unwrap();
        let checks = document["preflight"][0]["checks"].as_array().unwrap();
        checks.iter().filter(|check| check["name"] == "source_shards").cloned().collect()
    }
}

#[tokio::test]
async fn a_cluster_within_tls_is_carried_to_another() {
    let protected =
        || ClusterOptions::shards(2).auth(Auth::default()).tls(TlsMode::ClientCertificate);
    let scene = Scene::set(protected(), Destination::cluster(protected()), environment()).await;
    scene.fill(300, 200).await;
    let declaration = with_files(scene.declaration(), "source", scene.source.tls().unwrap())
        .user("source", ROOT_USER, "ROOT")
        .user("destination", ROOT_USER, "ROOT");
    let declaration =
        with_files(declaration, "destination", scene.destination.as_cluster().tls().unwrap());
    // Every shard is read directly, none through the router.
    for (place, check) in scene.shards(&declaration).await.iter().enumerate() {
        assert_eq!(check["outcome"], "ok", "{check:#}");
        assert!(
            check["message"].as_str().unwrap().starts_with(&format!("shard shard-{place} at ")),
            "{check:#}"
        );
    }
    scene.apply(&declaration).await;
    scene.wait_for("ready").await;
    let db = scene.source.client().await.unwrap().database("shop");
    for name in ["hashed", "ranged", "plain"] {
        let collection = db.collection::<Document>(name);
        collection
            .insert_many((1_000..1_050).map(|n| doc! { "_id": n, "a": n * 7 % 1_000 }))
            .await
            .unwrap();
        collection
            .update_many(doc! { "_id": { "$lt": 100 } }, doc! { "$set": { "seen": true } })
            .await
            .unwrap();
        collection.delete_many(doc! { "_id": { "$gte": 250, "$lt": 300 } }).await.unwrap();
    }
    scene.acknowledge(&declaration).await;
    scene.wait_for("completed").await;
    scene.prove().await;
}

#[tokio::test]
async fn a_shard_whose_certificate_does_not_hold_is_told() {
    let source = ClusterOptions {
        shard_certificates: vec![Certificate::OfAnotherHost, Certificate::OfAnotherAuthority],
        ..ClusterOptions::shards(3).tls(TlsMode::ServerCertificate)
    };
    let scene = Scene::set(source, Destination::set(Options::default()), environment()).await;
    let files = scene.source.tls().unwrap();
    let ca = files.ca_file.display().to_string();
    let plain = scene.declaration();
    let with_block = plain.clone().text("source.tls.ca_file", &ca);
    let in_uri = plain
        .clone()
        .text("source.uri", &format!("{}?tls=true&tlsCAFile={ca}", scene.source.uri()));
    let told = scene.shards(&in_uri).await;
    let outcomes: Vec<&str> = told.iter().map(|check| check["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes, ["fail", "fail", "ok"], "{told:#?}");
    for (check, (shard, why)) in
        told.iter().zip([("shard-0", "not valid for name"), ("shard-1", "UnknownIssuer")])
    {
        assert_eq!(check["code"], "CUT0013", "{check:#}");
        let message = check["message"].as_str().unwrap();
        assert!(
            message.starts_with(&format!("shard {shard}: ")) && message.contains(why),
            "{check:#}"
        );
    }
    // Nothing begins so, through the router neither, wherever the authority stands.
    with_block.write(scene.cutover.folder()).unwrap();
    let refused = scene.cutover.run(["apply", "--auto-approve"]).await.unwrap();
    assert_eq!(refused.code, 1, "{refused}");
    for told in ["CUT0013", "shard shard-0: ", "shard shard-1: "] {
        assert!(refused.stderr.contains(told), "{told}: {refused}");
    }

    // The block's authority goes over the URI's, for shards as well, and of the two that sign here
    // the file may hold both.
    let both = files.showing(Certificate::Proper).ca_file.display().to_string();
    let block_wins = in_uri.clone().text("source.tls.ca_file", &both);
    let told = scene.shards(&block_wins).await;
    let outcomes: Vec<&str> = told.iter().map(|check| check["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes, ["fail", "ok", "ok"], "{told:#?}");

    // Who says that nothing is to be checked is taken at his word on every shard.
    let unchecked = plain.text(
        "source.uri",
        &format!("{}?tls=true&tlsAllowInvalidCertificates=true", scene.source.uri()),
    );
    let told = scene.shards(&unchecked).await;
    assert!(told.len() == 3 && told.iter().all(|check| check["outcome"] == "ok"), "{told:#?}");
}
