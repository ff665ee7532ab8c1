//! Two replica sets, a daemon, and a module that migrates one to the other.

use anyhow::Result;
use mongodb::bson::doc;
use rig::cutover::Cutover;
use rig::{Cutoverd, Options, Output, ReplicaSet, Terraform, cutoverd};

/// The resource's address in [`module`].
pub(crate) const ADDRESS: &str = "cutover_migration.orders";

pub(crate) struct Scene {
    pub(crate) source: ReplicaSet,
    pub(crate) destination: ReplicaSet,
    pub(crate) daemon: Cutoverd,
    pub(crate) terraform: Terraform,
    pub(crate) cutover: Cutover,
}

impl Scene {
    /// Starts everything; the source has a few documents.
    pub(crate) async fn set() -> Result<Self> {
        let set = |name: &str| ReplicaSet::start(Options { name: name.to_owned(), ..Options::default() });
        let (source, destination) = tokio::try_join!(set("a"), set("b"))?;
        let client = source.client().await?;
        let documents: Vec<_> = (0..500).map(|id| doc! { "_id": id, "text": "x".repeat(100) }).collect();
        client.database("shop").collection("orders").insert_many(documents).await?;
        let daemon = Cutoverd::start(cutoverd::Config::default()).await?;
        let terraform = Terraform::new().await?;
        let cutover = Cutover::new(terraform.folder()).daemon(&daemon);
        Ok(Self { source, destination, daemon, terraform, cutover })
    }

    /// The provider's block and one migration. `head` are attributes of the resource, `cutover` of its block of that name.
    pub(crate) fn module(&self, head: &str, cutover: &str) -> String {
        let provider = provider(&self.daemon.endpoint());
        let (source, destination) = (self.source.uri(), self.destination.uri());
        format!(
            "{provider}\nresource \"cutover_migration\" \"orders\" {{\n  name = \"orders\"\n  {head}\n  source {{\n    uri = {source:?}\n  }}\n  \
             destination {{\n    uri = {destination:?}\n  }}\n  cutover {{\n    max_lag = \"30s\"\n    {cutover}\n  }}\n}}\n"
        )
    }

    /// Writes [`Self::module`].
    pub(crate) fn write(&self, head: &str, cutover: &str) -> Result<()> {
        self.terraform.write("main.tf", &self.module(head, cutover))
    }
}

/// The module's first lines.
pub(crate) fn provider(endpoint: &str) -> String {
    format!(
        "terraform {{\n  required_providers {{\n    cutover = {{ source = \"cutover-dev/cutover\" }}\n  }}\n}}\n\
         provider \"cutover\" {{\n  endpoint = {endpoint:?}\n  workspace = \"shop\"\n}}\n"
    )
}

/// Asserts that a text is in what a command printed.
#[track_caller]
pub(crate) fn says(output: &Output, text: &str) {
    // Terraform breaks long lines wherever it likes.
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let (printed, text) = (words(&format!("{}\n{}", output.stdout, output.stderr)), words(text));
    assert!(printed.contains(&text), "{text:?} is not in:\n{output}");
}

/// Asserts a command's exit code.
#[track_caller]
pub(crate) fn ends(output: &Output, code: i32) {
    assert_eq!(output.code, code, "{output}");
}
