//! One daemon after another on one state directory, over its real socket.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use daemon::config::{Config, Listen};
use daemon::crash_point::CrashPoint;
use daemon::daemon::{Daemon, TestHooks};
use schemas::fault::{Fault, FaultCode};
use schemas::history::Entry;
use schemas::id::MigrationName;
use schemas::observed::Observed;
use schemas::phase::Phase;
use schemas::spec::{ExistingData, MigrationSpec};
use schemas::wire::v1::act_request::Act;
use schemas::wire::v1::cutover_client::CutoverClient;
use schemas::wire::v1::{ActRequest, Actor, ApplyRequest, Change, EventsRequest, ObserveRequest};
use schemas::wire::{FORMAT_VERSION, from_status, to_json};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

use super::fake::FakeWorld;

/// Far longer than anything here takes: a test that waits this long has failed.
const PATIENCE: Duration = Duration::from_secs(40);

pub(crate) struct Bench {
    folder: tempfile::TempDir,
    pub(crate) world: FakeWorld,
    daemon: Option<Daemon>,
    death: CancellationToken,
    /// The directory that daemons started from now on watch.
    pub(crate) watch: Option<PathBuf>,
}

pub(crate) fn spec(name: &str) -> MigrationSpec {
    let uri = |side: char| format!("mongodb://{name}-{side}:27017");
    MigrationSpec::between(MigrationName::new(name).expect("a name"), uri('a'), uri('b'))
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self {
            folder: tempfile::tempdir().expect("a folder"),
            world: FakeWorld::new(),
            daemon: None,
            death: CancellationToken::new(),
            watch: None,
        }
    }

    /// A folder of its own, for files.
    pub(crate) fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    pub(crate) async fn started() -> Self {
        let mut bench = Self::new();
        bench.start(None).await;
        bench
    }

    pub(crate) fn config(&self) -> Config {
        Config {
            command: None,
            state_dir: self.folder.path().join("state"),
            listen: Listen { path: self.folder.path().join("s") },
            listen_tls: None,
            tls_certificate_key_file: None,
            tls_client_ca_file: None,
            http: None,
            watch: self.watch.clone(),
            memory_mb: daemon::memory::DEFAULT_BYTES >> 20,
            log: "info".to_owned(),
        }
    }

    fn offset_file(&self) -> PathBuf {
        self.folder.path().join("offset")
    }

    fn full_file(&self) -> PathBuf {
        self.folder.path().join("full")
    }

    /// Fills the journal's disk, or makes room.
    pub(crate) fn fill_disk(&self, full: bool) {
        if full {
            std::fs::write(self.full_file(), "").expect("writes");
        } else {
            std::fs::remove_file(self.full_file()).expect("it was full");
        }
    }

    /// Has the daemon die where it stands.
    pub(crate) async fn crash(&mut self) {
        self.world.kill_syncs();
        self.daemon.take().expect("it ran").abandon().await;
        // Its thread looks up within a tick.
        tokio::time::sleep(Duration::from_millis(300)).await;
    }

    /// Sets the wall clock that the daemon sees.
    pub(crate) fn shift_clock(&self, seconds: i64) {
        std::fs::write(self.offset_file(), seconds.to_string()).expect("writes");
    }

    pub(crate) async fn try_start(&mut self, crash_at: Option<&str>) -> Result<(), Fault> {
        self.death = CancellationToken::new();
        let crash_point = match crash_at {
            Some(place) => CrashPoint::stopping_at(place, self.death.clone()),
            None => CrashPoint::none(),
        };
        let hooks = TestHooks {
            crash_point,
            clock_offset_file: Some(self.offset_file()),
            full_disk_file: Some(self.full_file()),
        };
        self.daemon =
            Some(Daemon::start(&self.config(), Arc::new(self.world.clone()), hooks).await?);
        Ok(())
    }

    pub(crate) async fn start(&mut self, crash_at: Option<&str>) {
        self.try_start(crash_at).await.expect("the daemon starts");
    }

    pub(crate) async fn stop(&mut self) {
        self.daemon.take().expect("it runs").stop().await;
    }

    /// Waits until the daemon has died at its place, and buries it.
    pub(crate) async fn wait_for_death(&mut self) {
        tokio::time::timeout(PATIENCE, self.death.cancelled()).await.expect("the place is reached");
        self.world.kill_syncs();
        self.daemon.take().expect("it ran").abandon().await;
        // Its thread looks up within a tick.
        tokio::time::sleep(Duration::from_millis(300)).await;
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.death.is_cancelled()
    }

    pub(crate) async fn client(&self) -> CutoverClient<Channel> {
        let path = self.config().listen.path;
        let channel = Endpoint::try_from(format!("unix://{}", path.display()))
            .expect("an address")
            .connect()
            .await
            .expect("it listens");
        CutoverClient::new(channel)
    }

    pub(crate) async fn apply_at(
        &self,
        serial: u64,
        name: &str,
        spec: Option<&MigrationSpec>,
    ) -> Result<u64, Fault> {
        // What a plan would have listed.
        let drops = match spec.map(|spec| spec.destination.existing_data) {
            Some(ExistingData::Drop) => vec!["shop.old".to_owned()],
            Some(ExistingData::Refuse) | None => Vec::new(),
        };
        let change = Change {
            name: name.to_owned(),
            expected_serial: serial,
            spec: spec.map(to_json).unwrap_or_default(),
            drops,
        };
        Ok(self.apply_all(vec![change]).await?[0])
    }

    pub(crate) async fn apply_all(&self, changes: Vec<Change>) -> Result<Vec<u64>, Fault> {
        let request = ApplyRequest {
            format_version: FORMAT_VERSION,
            workspace: "payments".to_owned(),
            changes,
            actor: Some(Actor { name: "ada".to_owned(), revision: "abc123".to_owned() }),
        };
        let response =
            self.client().await.apply(request).await.map_err(|status| from_status(&status))?;
        Ok(response.into_inner().applied.into_iter().map(|applied| applied.serial).collect())
    }

    /// Applies on the present serial.
    pub(crate) async fn apply(&self, spec: &MigrationSpec) -> Result<u64, Fault> {
        let serial =
            self.find(spec.name.as_str()).await.map_or(0, |observed| observed.status.serial.0);
        self.apply_at(serial, spec.name.as_str(), Some(spec)).await
    }

    pub(crate) async fn remove(&self, name: &str) -> Result<u64, Fault> {
        let serial = self.observed(name).await.status.serial.0;
        self.apply_at(serial, name, None).await
    }

    pub(crate) async fn act(&self, name: &str, act: Act) -> Result<String, Fault> {
        let request = ActRequest {
            workspace: String::new(),
            name: name.to_owned(),
            actor: None,
            act: Some(act),
        };
        Ok(self
            .client()
            .await
            .act(request)
            .await
            .map_err(|status| from_status(&status))?
            .into_inner()
            .message)
    }

    pub(crate) async fn find(&self, name: &str) -> Option<Observed> {
        let request = ObserveRequest { workspace: "payments".to_owned(), name: name.to_owned() };
        let answer = self.client().await.observe(request).await.expect("it answers").into_inner();
        assert!(answer.observed.len() <= 1);
        answer.observed.first().map(|json| serde_json::from_str(json).expect("an observation"))
    }

    /// The same of a daemon that may be dying.
    pub(crate) async fn try_find(&self, name: &str) -> Option<Observed> {
        let path = self.config().listen.path;
        let channel =
            Endpoint::try_from(format!("unix://{}", path.display())).ok()?.connect().await.ok()?;
        let request = ObserveRequest { workspace: "payments".to_owned(), name: name.to_owned() };
        let answer = CutoverClient::new(channel).observe(request).await.ok()?.into_inner();
        answer.observed.first().and_then(|json| serde_json::from_str(json).ok())
    }

    pub(crate) async fn observed(&self, name: &str) -> Observed {
        self.find(name).await.expect("the migration is there")
    }

    pub(crate) async fn wait_until(
        &self,
        name: &str,
        what: &str,
        holds: impl Fn(&Observed) -> bool,
    ) -> Observed {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let observed = self.observed(name).await;
            if holds(&observed) {
                return observed;
            }
            if tokio::time::Instant::now() >= deadline {
                panic!(
                    "waited in vain for {what}: {:#?} {:?}",
                    observed.status,
                    self.world.look().calls
                );
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    }

    pub(crate) async fn wait_for(&self, name: &str, phase: Phase) -> Observed {
        self.wait_until(name, phase.as_str(), |observed| observed.status.phase == phase).await
    }

    /// Acknowledges the token that is offered.
    pub(crate) async fn acknowledge(&self, spec: &MigrationSpec) -> Result<MigrationSpec, Fault> {
        let observed = self.observed(spec.name.as_str()).await;
        let token = observed
            .status
            .acknowledge_token
            .ok_or_else(|| Fault::new(FaultCode::NotReady, "no token is offered"))?;
        let mut spec = observed.spec;
        spec.cutover.acknowledge = Some(token);
        self.apply(&spec).await?;
        Ok(spec)
    }

    pub(crate) async fn entries(&self, name: &str) -> Vec<Entry> {
        let request =
            EventsRequest { workspace: String::new(), name: name.to_owned(), follow: false };
        let mut stream =
            self.client().await.events(request).await.expect("it answers").into_inner();
        let mut entries = Vec::new();
        while let Some(response) = stream.message().await.expect("it goes on") {
            entries.push(serde_json::from_str(&response.entry).expect("a record"));
        }
        entries
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.world.kill_syncs();
    }
}
