//! What one process of the plugin knows: where the daemon is, and whether somebody has interrupted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use schemas::fault::{Fault, FaultCode};
use schemas::hcl::DaemonTls;
use schemas::hcl::external::{Outcome, check_daemon};
use schemas::hcl::schema::DAEMON;
use schemas::id::{MigrationName, RunId, Workspace};
use schemas::observed::{Inspection, Observed};
use schemas::spec::MigrationSpec;
use schemas::wire::{DEFAULT_ENDPOINT, ENDPOINT_VARIABLE, v1};
use tokio::sync::watch;
use tokio::time::Instant;

use super::declare::{self, Store};
use super::value::Value;
use crate::daemon_client::DaemonClient;
use crate::declaration::Reach;
use crate::endpoint::Endpoint;

/// The provider's block, as it was configured.
#[derive(Debug, Clone)]
pub(crate) enum Settings {
    /// Not at all yet, or with values that are not known before something else is applied.
    Unknown,
    /// In full.
    Known {
        /// Where the daemon listens.
        endpoint: Endpoint,
        /// How one on TCP and its caller know each other.
        tls: Option<DaemonTls>,
        /// What this configuration owns there.
        workspace: Workspace,
    },
}

/// What resources of one name are planned to do: each of them asks once.
#[derive(Debug, Clone, Copy, Default)]
struct Asked {
    creations: u32,
    updates: u32,
    removals: u32,
}

/// What one resource is planned to do with its migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    /// To have it made, which the state does not have.
    Create,
    /// To have it stay.
    Update,
    /// To have it go.
    Remove,
}

/// How long live checks are good for: the two plans of one replacement follow each other at once.
const FRESH: Duration = Duration::from_secs(5);

/// One process's knowledge.
#[derive(Debug)]
pub(crate) struct Session {
    settings: Mutex<Settings>,
    stopped: watch::Sender<bool>,
    /// The runs that were there already when they were to be created.
    adopted: Mutex<BTreeSet<RunId>>,
    /// What was asked of each name since the provider was configured, which Terraform does before
    /// it plans and before it applies.
    asked: Mutex<BTreeMap<MigrationName, Asked>>,
    /// The runs that the state has, as far as Terraform has shown it since then.
    owned: Mutex<BTreeSet<String>>,
    /// Live checks measure the same disks and networks: one at a time. What they found is good for
    /// a while: a replacement is planned twice.
    inspected: tokio::sync::Mutex<Option<(MigrationSpec, Instant, Inspection)>>,
}

impl Default for Session {
    fn default() -> Self {
        Self {
            settings: Mutex::new(Settings::Unknown),
            stopped: watch::Sender::new(false),
            adopted: Mutex::default(),
            asked: Mutex::default(),
            owned: Mutex::default(),
            inspected: tokio::sync::Mutex::default(),
        }
    }
}

/// A daemon, and what this configuration owns there.
#[derive(Debug, Clone)]
pub(crate) struct Connected {
    /// The daemon.
    pub(crate) client: DaemonClient,
    /// The workspace, and where passwords for it are.
    pub(crate) store: Store,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is guarded is replaced whole, never left half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Session {
    /// Takes the provider's block.
    pub(crate) fn configure(&self, config: &Value) -> Outcome<()> {
        // One that runs under a debugger outlives an interrupted command.
        self.stopped.send_replace(false);
        lock(&self.asked).clear();
        lock(&self.owned).clear();
        let checked = check_daemon(&declare::working_folder(), &declare::values(&DAEMON, config));
        let Some(daemon) = checked.made else {
            *lock(&self.settings) = Settings::Unknown;
            return Outcome { made: None, diagnostics: checked.diagnostics };
        };
        let variable = std::env::var(ENDPOINT_VARIABLE).ok().filter(|value| !value.is_empty());
        let endpoint = daemon.endpoint.or(variable).unwrap_or_else(|| DEFAULT_ENDPOINT.to_owned());
        // As with the endpoint: Terraform's own configuration comes first.
        let tls = daemon.tls.map_or_else(Reach::tls_of_environment, |tls| Ok(Some(tls)));
        let settled = endpoint.parse().and_then(|endpoint| {
            Ok(Settings::Known { endpoint, tls: tls?, workspace: daemon.workspace })
        });
        let diagnostics = match settled {
            Ok(settings) => {
                *lock(&self.settings) = settings;
                checked.diagnostics
            }
            Err(fault) => schemas::hcl::Diagnostic::from_fault(&fault, None).into(),
        };
        Outcome { made: None, diagnostics }
    }

    /// Connects to the daemon; `None` where it is not known yet which that is.
    pub(crate) async fn connect(&self) -> Result<Option<Connected>, Fault> {
        let settings = lock(&self.settings).clone();
        let Settings::Known { endpoint, tls, workspace } = settings else { return Ok(None) };
        let client =
            DaemonClient::connect(&endpoint, tls.as_ref()).await.map_err(in_terraforms_terms)?;
        let state_dir = client.state_dir().await.map_err(in_terraforms_terms)?;
        Ok(Some(Connected { client, store: Store { state_dir, workspace } }))
    }

    /// Connects to the daemon, for what cannot be done without one.
    pub(crate) async fn must_connect(&self) -> Result<Connected, Fault> {
        self.connect().await?.ok_or_else(|| {
            Fault::new(
                FaultCode::InvalidConfiguration,
                "the provider's endpoint or workspace is not known yet",
            )
            .with_remedy("apply what they come from first, with -target")
        })
    }

    /// Interrupts what is under way.
    pub(crate) fn stop(&self) {
        self.stopped.send_replace(true);
    }

    /// Waits until somebody interrupts.
    pub(crate) async fn stopped(&self) {
        let mut stopped = self.stopped.subscribe();
        if stopped.wait_for(|stopped| *stopped).await.is_err() {
            // Nobody can interrupt any more.
            std::future::pending::<()>().await;
        }
    }

    /// Notes what a resource asks of a migration; false where another one of the same name has
    /// asked before.
    #[must_use]
    pub(crate) fn ask(&self, name: &MigrationName, ask: Ask) -> bool {
        let mut asked = lock(&self.asked);
        let asked = asked.entry(name.clone()).or_default();
        match ask {
            Ask::Create => asked.creations += 1,
            Ask::Update => asked.updates += 1,
            Ask::Remove => asked.removals += 1,
        }
        asked.creations + asked.updates + asked.removals < 2
    }

    /// Notes a run that the state has.
    pub(crate) fn own(&self, run: &str) {
        lock(&self.owned).insert(run.to_owned());
    }

    /// Whether the state has a run, as far as Terraform has shown it.
    #[must_use]
    pub(crate) fn owns(&self, run: &RunId) -> bool {
        lock(&self.owned).contains(&run.to_string())
    }

    /// Remembers a run that was there already when it was to be created.
    pub(crate) fn adopt(&self, run: RunId) {
        lock(&self.adopted).insert(run);
    }

    /// Whether a run was there already when it was to be created.
    #[must_use]
    pub(crate) fn has_adopted(&self, run: &str) -> bool {
        lock(&self.adopted).iter().any(|one| one.to_string() == run)
    }

    /// Runs the live checks of a declaration.
    pub(crate) async fn inspect(
        &self,
        daemon: &Connected,
        spec: &MigrationSpec,
        secrets: Vec<v1::Secret>,
    ) -> Result<Inspection, Fault> {
        let mut last = self.inspected.lock().await;
        if let Some((of, at, inspection)) = last.as_ref()
            && of == spec
            && at.elapsed() < FRESH
        {
            return Ok(inspection.clone());
        }
        let inspection = daemon
            .client
            .inspect_with(daemon.workspace(), spec, secrets)
            .await
            .map_err(in_terraforms_terms)?;
        *last = Some((spec.clone(), Instant::now(), inspection.clone()));
        Ok(inspection)
    }
}

impl Connected {
    /// What this configuration owns there.
    pub(crate) fn workspace(&self) -> &Workspace {
        &self.store.workspace
    }

    /// A migration as it is; `None` where there is none.
    pub(crate) async fn observe(&self, name: &MigrationName) -> Result<Option<Observed>, Fault> {
        let observed =
            self.client.observe(Some(self.workspace()), None).await.map_err(in_terraforms_terms)?;
        Ok(observed.into_iter().find(|one| one.status.name == *name))
    }
}

/// Remedies name what the reader can write.
pub(crate) fn in_terraforms_terms(fault: Fault) -> Fault {
    if fault.code == FaultCode::DaemonUnreachable && fault.remedy == fault.code.remedy() {
        return fault.with_remedy(
            "start cutoverd, or name its socket in the provider's `endpoint` \
             or in CUTOVER_ENDPOINT",
        );
    }
    fault
}
