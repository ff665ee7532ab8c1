//! The runs that are open in the engine: each once, opened again when a setting that it works by
//! has changed.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lifecycle::{EarlierRun, Resting, Run, State};
use schemas::fault::Fault;
use schemas::id::{RunId, Workspace};
use schemas::namespace::Namespace;
use schemas::observed::Inspection;
use schemas::spec::{MigrationSpec, SpecDigest};

use crate::engine::{Engine, EngineContext, EngineProgress, Ours, Relief, RunEngine};
use crate::state_dir::run_dir;

/// The open runs.
pub struct Engines {
    engine: Arc<dyn Engine>,
    state_dir: PathBuf,
    open: Mutex<HashMap<RunId, Open>>,
    /// Of two callers that find a run not open, or open with other settings, only one may open it:
    /// two engines must never work on one run's checkpoints.
    opening: Mutex<HashMap<RunId, Arc<tokio::sync::Mutex<()>>>>,
}

struct Open {
    works_by: SpecDigest,
    engine: Arc<dyn RunEngine>,
}

/// The digest of what the engine works by: the declaration without what only the lifecycle looks
/// at.
#[must_use]
pub fn works_by(spec: &MigrationSpec) -> SpecDigest {
    let mut spec = spec.clone();
    let defaults = schemas::spec::CutoverSpec::default();
    spec.cutover =
        schemas::spec::CutoverSpec { source_writes: spec.cutover.source_writes, ..defaults };
    spec.digest()
}

/// Whether a run that may go on has had its checkpoints.
fn has_begun(run: &Run) -> bool {
    match &run.state {
        State::Copying { .. }
        | State::CatchingUp { .. }
        | State::Ready
        | State::Draining { .. }
        | State::Finalizing { .. }
        | State::Expired { .. } => true,
        State::Paused { from } | State::Failed { from, .. } => !matches!(from, Resting::Validating),
        // What ended is only cleaned up, which needs none.
        State::Validating { .. } | State::Completed { .. } | State::Cancelled { .. } => false,
    }
}

/// What a run drops after its validation.
fn replaces(run: &Run) -> Vec<Namespace> {
    let mut replaces = run.replaces();
    replaces.extend(run.agreed_drops.iter().cloned());
    replaces
}

impl Engines {
    /// None is open yet.
    #[must_use]
    pub fn new(engine: Arc<dyn Engine>, state_dir: PathBuf) -> Self {
        Self { engine, state_dir, open: Mutex::default(), opening: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<RunId, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at a declaration's two sides.
    pub async fn inspect(&self, spec: &MigrationSpec, ours: &Ours) -> Inspection {
        self.engine.inspect(spec, ours).await
    }

    /// The engine of a run, opened where it is not, and again where it was opened with other
    /// settings.
    pub async fn of_run(
        &self,
        workspace: &Workspace,
        run: &Run,
        spec: &Arc<MigrationSpec>,
    ) -> Result<Arc<dyn RunEngine>, Fault> {
        self.obtain(workspace, &run.id, spec, has_begun(run), replaces(run)).await
    }

    /// What gives back what a run holds, where its own folder cannot be used.
    #[must_use]
    pub fn relief(
        &self,
        workspace: &Workspace,
        run: &RunId,
        spec: &Arc<MigrationSpec>,
    ) -> Arc<dyn Relief> {
        self.engine.relief(self.context(workspace, run, spec, Vec::new()))
    }

    /// The engine of an earlier run.
    pub async fn of_earlier(
        &self,
        workspace: &Workspace,
        earlier: &EarlierRun,
    ) -> Result<Arc<dyn RunEngine>, Fault> {
        self.obtain(workspace, &earlier.id, &Arc::new((*earlier.spec).clone()), false, Vec::new())
            .await
    }

    async fn obtain(
        &self,
        workspace: &Workspace,
        run: &RunId,
        spec: &Arc<MigrationSpec>,
        has_begun: bool,
        replaces: Vec<Namespace>,
    ) -> Result<Arc<dyn RunEngine>, Fault> {
        let works_by = works_by(spec);
        let turn = self.turn(run);
        let _turn = turn.lock().await;
        let outdated = {
            let open = self.lock();
            match open.get(run) {
                Some(known) if known.works_by == works_by => return Ok(Arc::clone(&known.engine)),
                Some(known) => Some(Arc::clone(&known.engine)),
                None => None,
            }
        };
        if let Some(outdated) = outdated {
            outdated.stop_sync().await;
            self.lock().remove(run);
        }
        self.open(workspace, run, spec, has_begun, replaces)
    }

    /// One at a time, for each run.
    fn turn(&self, run: &RunId) -> Arc<tokio::sync::Mutex<()>> {
        let mut opening = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(opening.entry(run.clone()).or_default())
    }

    /// Opens a run, in its turn.
    fn open(
        &self,
        workspace: &Workspace,
        run: &RunId,
        spec: &Arc<MigrationSpec>,
        has_begun: bool,
        replaces: Vec<Namespace>,
    ) -> Result<Arc<dyn RunEngine>, Fault> {
        let context = EngineContext { has_begun, ..self.context(workspace, run, spec, replaces) };
        let engine = self.engine.open(context)?;
        self.lock()
            .insert(run.clone(), Open { works_by: works_by(spec), engine: Arc::clone(&engine) });
        Ok(engine)
    }

    fn context(
        &self,
        workspace: &Workspace,
        run: &RunId,
        spec: &Arc<MigrationSpec>,
        replaces: Vec<Namespace>,
    ) -> EngineContext {
        EngineContext {
            run: run.clone(),
            workspace: workspace.clone(),
            spec: Arc::clone(spec),
            run_dir: run_dir(&self.state_dir, run),
            has_begun: false,
            replaces: replaces.into(),
        }
    }

    /// A run for a reader: opened where nobody has opened it yet, and as it is where somebody has,
    /// whatever the reader takes its settings to be. `None` where it has not begun, or cannot be
    /// opened.
    pub async fn for_reading(
        &self,
        workspace: &Workspace,
        run: &Run,
        spec: &Arc<MigrationSpec>,
    ) -> Option<Arc<dyn RunEngine>> {
        let known = || self.lock().get(&run.id).map(|open| Arc::clone(&open.engine));
        if let Some(engine) = known() {
            return Some(engine);
        }
        let turn = self.turn(&run.id);
        let _turn = turn.lock().await;
        if let Some(engine) = known() {
            return Some(engine);
        }
        // A run without a folder has nothing to show, or was forgotten meanwhile.
        if !run_dir(&self.state_dir, &run.id).exists() {
            return None;
        }
        self.open(workspace, &run.id, spec, has_begun(run), replaces(run)).ok()
    }

    /// Where an open run is; `None` where it is not open.
    #[must_use]
    pub fn progress(&self, run: &RunId) -> Option<EngineProgress> {
        let engine = Arc::clone(&self.lock().get(run)?.engine);
        Some(engine.progress())
    }

    /// Whether the source still holds what comes after an open run's checkpoints; `None` where that
    /// cannot be seen now.
    pub async fn resume_point_held(&self, run: &RunId) -> Option<bool> {
        let engine = Arc::clone(&self.lock().get(run)?.engine);
        engine.resume_point_held().await.ok().flatten()
    }

    /// Lets go of a run whose sync has stopped.
    pub fn close(&self, run: &RunId) {
        self.lock().remove(run);
        self.opening.lock().unwrap_or_else(PoisonError::into_inner).remove(run);
    }

    /// Lets go of a forgotten run, and removes its folder.
    pub async fn forget(&self, run: &RunId) {
        self.close(run);
        let folder = run_dir(&self.state_dir, run);
        if let Err(error) = tokio::fs::remove_dir_all(&folder).await
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(folder = %folder.display(), %error, "the forgotten run's folder could \
                 not be removed");
        }
    }

    /// Stops every sync, with its checkpoints written.
    pub async fn stop_all(&self) {
        let engines: Vec<Arc<dyn RunEngine>> =
            self.lock().drain().map(|(_, open)| open.engine).collect();
        futures_util::future::join_all(engines.iter().map(|engine| engine.stop_sync())).await;
    }
}
