//! Two replica sets, a daemon, and a module that migrates one to the other.

use anyhow::Result;
use mongodb::bson::{Document, doc};
use rig::cutover::Cutover;
use rig::{Auth, Cutoverd, Options, Output, ReplicaSet, Terraform, User, cutoverd};

/// The resource's address in [`Scene::module`].
pub(crate) const ADDRESS: &str = "cutover_migration.orders";

/// The workspace that [`provider`] is configured for.
pub(crate) const WORKSPACE: &str = "shop";

/// The password of both sides' users, where there are any.
pub(crate) const PASSWORD: &str = "correct-horse-battery";

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
        Self::with(|_| {}).await
    }

    /// The same with users that have [`PASSWORD`], which the daemon finds in its environment.
    pub(crate) async fn with_users() -> Result<Self> {
        Self::with(|options| {
            let user = User::new("migrator", PASSWORD, &["root"]);
            options.auth = Some(Auth { users: vec![user] });
        })
        .await
    }

    /// The same with a destination that takes no documents until [`Self::let_go`].
    pub(crate) async fn held() -> Result<Self> {
        let scene = Self::with(|options| {
            options.arguments =
                ["--setParameter", "enableTestCommands=1"].map(str::to_owned).to_vec();
        })
        .await?;
        scene.fail_point(doc! { "mode": "alwaysOn" }).await?;
        Ok(scene)
    }

    /// Lets documents through.
    pub(crate) async fn let_go(&self) -> Result<()> {
        self.fail_point(doc! { "mode": "off" }).await
    }

    async fn fail_point(&self, mode: Document) -> Result<()> {
        let mut command = doc! { "configureFailPoint": "failCommand" };
        command.extend(mode);
        command.insert(
            "data",
            doc! {
                "failCommands": ["insert"], "errorCode": 11601,
                "errorLabels": ["RetryableWriteError"],
            },
        );
        self.destination.client().await?.database("admin").run_command(command).await?;
        Ok(())
    }

    async fn with(change: impl Fn(&mut Options)) -> Result<Self> {
        let set = |name: &str| {
            let mut options = Options { name: name.to_owned(), ..Options::default() };
            change(&mut options);
            ReplicaSet::start(options)
        };
        let (source, destination) = tokio::try_join!(set("a"), set("b"))?;
        let client = source.client().await?;
        let documents: Vec<_> =
            (0..500).map(|id| doc! { "_id": id, "text": "x".repeat(100) }).collect();
        client.database("shop").collection("orders").insert_many(documents).await?;
        let daemon =
            Cutoverd::start(cutoverd::Config::default().env("THE_PASSWORD", PASSWORD)).await?;
        let terraform = Terraform::new().await?;
        let cutover = Cutover::new(terraform.folder()).daemon(&daemon);
        Ok(Self { source, destination, daemon, terraform, cutover })
    }

    /// The provider's block and one migration. `head` are attributes of the resource, `cutover` of
    /// its block of that name.
    pub(crate) fn module(&self, head: &str, cutover: &str) -> String {
        format!(
            "{}resource \"cutover_migration\" \"orders\" {{\n  name = \"orders\"\n  {head}\n{}  \
             cutover {{\n    max_lag = \"30s\"\n    \
             {cutover}\n  }}\n}}\n",
            provider(&self.daemon.endpoint()),
            self.sides("")
        )
    }

    /// The blocks of both sides, each with more attributes.
    pub(crate) fn sides(&self, more: &str) -> String {
        let (source, destination) = (self.source.uri(), self.destination.uri());
        format!(
            "  source {{\n    uri = {source:?}\n{more}  }}\n  destination {{\n    uri = \
             {destination:?}\n{more}  }}\n"
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
        "terraform {{\n  required_providers {{\n    cutover = {{ source = \"cutover-dev/cutover\" \
         }}\n  }}\n}}\n\
         provider \"cutover\" {{\n  endpoint = {endpoint:?}\n  workspace = {WORKSPACE:?}\n}}\n"
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
