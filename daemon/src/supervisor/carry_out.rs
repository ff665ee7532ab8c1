//! Each effect as calls of the engine.

use std::sync::Arc;
use std::time::Duration;

use lifecycle::{EarlierRun, Effect, Event, duties};
use schemas::fault::{Fault, FaultCode};
use schemas::id::RunId;
use schemas::spec::MigrationSpec;
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::{REPORTS, Supervisor, pump};
use crate::engine::{DropWhat, Ending, Relief};
use crate::journal::Key;
use crate::registry::{Orders, Registry, share_source};
use crate::supervisor::backoff::Backoff;

/// How long the source must take no write in scope to count as stopped
/// (`source_writes = "observe"`): longer than the pause of an application that writes at least
/// twice a second.
const QUIET_FOR: Duration = Duration::from_secs(2);

/// Carries an effect out, and returns the event that it ends in.
pub(super) async fn carry_out(
    supervisor: &Supervisor,
    key: &Key,
    orders: &Orders,
    effect: &Effect,
    registry: &Registry,
    backoff: &Arc<Backoff>,
) -> Result<Event, Fault> {
    if let Effect::RetireEarlier { run } = effect {
        let earlier = orders.run.earlier.iter().find(|earlier| earlier.id == *run);
        if let Some(earlier) = earlier {
            retire(supervisor, key, orders, earlier, registry).await?;
        }
        return Ok(Event::EarlierRetired { run: run.clone() });
    }
    let engine = match supervisor.engines.of_run(&key.workspace, &orders.run, &orders.spec).await {
        Err(fault) if fault.code == FaultCode::StateDirUnusable && effect.gives_back() => {
            warn!(migration = %key.name, effect = effect.kind().as_str(), %fault, "given back \
                 without the run's checkpoints");
            let relief = supervisor.engines.relief(&key.workspace, &orders.run.id, &orders.spec);
            return give_back(&*relief, key, orders, effect, registry).await;
        }
        engine => engine?,
    };
    match effect {
        Effect::RetireEarlier { run } => Ok(Event::EarlierRetired { run: run.clone() }),
        Effect::Validate => engine.validate().await.map(|()| Event::Validated),
        Effect::DropEarlier => engine
            .drop_namespaces(DropWhat::Created(orders.run.replaces()))
            .await
            .map(|()| Event::EarlierDropped),
        Effect::DropExisting => engine
            .drop_namespaces(DropWhat::Listed(orders.run.agreed_drops.clone()))
            .await
            .map(|()| Event::ExistingDropped),
        Effect::StartSync => {
            let (sender, reports) = mpsc::channel(REPORTS);
            engine.start_sync(sender).await?;
            supervisor.tasks.spawn(pump(
                reports,
                key.clone(),
                orders.run.id.clone(),
                registry.clone(),
                Arc::clone(backoff),
                supervisor.stop.clone(),
            ));
            Ok(Event::SyncStarted)
        }
        Effect::StopSync => {
            engine.stop_sync().await;
            Ok(Event::SyncStopped)
        }
        Effect::CheckResumePoint => {
            // Where it may not be seen the stream itself reports, when it is opened.
            engine
                .resume_point_held()
                .await
                .map(|held| Event::ResumePoint { held: held.unwrap_or(true) })
        }
        Effect::PrepareCutover { attempt } => {
            engine.prepare_cutover().await.map(|()| Event::CutoverPrepared { attempt: *attempt })
        }
        Effect::BlockSource { attempt } => {
            engine.block_source().await.map(|()| Event::SourceBlocked { attempt: *attempt })
        }
        Effect::WatchSource { attempt } => engine
            .watch_source_quiet(QUIET_FOR)
            .await
            .map(|()| Event::SourceQuiet { attempt: *attempt }),
        Effect::Drain { attempt } => {
            engine.drain().await.map(|final_time| Event::Drained { attempt: *attempt, final_time })
        }
        Effect::UnblockSource { attempt } => {
            if !is_fenced_by_another(&orders.run.id, &orders.spec, key, registry).await? {
                engine.unblock_source().await?;
            }
            Ok(Event::SourceUnblocked { attempt: *attempt })
        }
        Effect::RestoreSettings => {
            engine.restore_settings().await.map(|()| Event::SettingsRestored)
        }
        Effect::OpenDestination => {
            engine.open_destination().await.map(|()| Event::DestinationOpened)
        }
        Effect::FreeDestination => {
            unless_elsewhere(key, &orders.run.id, engine.open_destination().await)
                .map(|()| Event::DestinationFreed)
        }
        Effect::CleanUp => {
            let ending = match orders.run.state.cutover() {
                Some(_) => Ending::Completed,
                None => Ending::Cancelled,
            };
            // Neither side waits for the other: one of them may be away.
            let released = engine.release_source().await;
            let mut cleaned = engine.clean_up(ending).await;
            if ending == Ending::Cancelled {
                cleaned = unless_elsewhere(key, &orders.run.id, cleaned);
            }
            cleaned.and(released).map(|()| Event::CleanedUp)
        }
    }
}

/// Gives back what a run holds while its own folder cannot be used.
async fn give_back(
    relief: &dyn Relief,
    key: &Key,
    orders: &Orders,
    effect: &Effect,
    registry: &Registry,
) -> Result<Event, Fault> {
    match effect {
        // Without its checkpoints nothing of it runs.
        Effect::StopSync => Ok(Event::SyncStopped),
        Effect::UnblockSource { attempt } => {
            if !is_fenced_by_another(&orders.run.id, &orders.spec, key, registry).await? {
                relief.unblock_source().await?;
            }
            Ok(Event::SourceUnblocked { attempt: *attempt })
        }
        Effect::OpenDestination => {
            relief.open_destination().await.map(|()| Event::DestinationOpened)
        }
        Effect::FreeDestination => {
            relief.open_destination().await.map(|()| Event::DestinationFreed)
        }
        Effect::RetireEarlier { .. }
        | Effect::Validate
        | Effect::DropEarlier
        | Effect::DropExisting
        | Effect::StartSync
        | Effect::CheckResumePoint
        | Effect::PrepareCutover { .. }
        | Effect::BlockSource { .. }
        | Effect::WatchSource { .. }
        | Effect::Drain { .. }
        | Effect::RestoreSettings
        | Effect::CleanUp => Err(Fault::new(
            FaultCode::Internal,
            format!("{} gives nothing back", effect.kind().as_str()),
        )),
    }
}

/// Takes back what an earlier run still holds.
async fn retire(
    supervisor: &Supervisor,
    key: &Key,
    orders: &Orders,
    earlier: &EarlierRun,
    registry: &Registry,
) -> Result<(), Fault> {
    let engine = match supervisor.engines.of_earlier(&key.workspace, earlier).await {
        Err(fault) if fault.code == FaultCode::StateDirUnusable => {
            // What others wait for is given back at once; the rest when the run can be opened.
            let relief = supervisor.engines.relief(
                &key.workspace,
                &earlier.id,
                &Arc::new((*earlier.spec).clone()),
            );
            if earlier.fenced
                && !is_fenced_by_another(&earlier.id, &earlier.spec, key, registry).await?
            {
                relief.unblock_source().await?;
            }
            if !earlier.completed {
                relief.open_destination().await?;
            }
            return Err(fault);
        }
        engine => engine?,
    };
    engine.stop_sync().await;
    if earlier.fenced && !is_fenced_by_another(&earlier.id, &earlier.spec, key, registry).await? {
        unless_elsewhere(key, &earlier.id, engine.unblock_source().await)?;
    }
    if !earlier.completed {
        let freed = match engine.open_destination().await {
            Ok(()) => engine.clean_up(Ending::Cancelled).await,
            Err(fault) => Err(fault),
        };
        match unless_elsewhere(key, &earlier.id, freed) {
            Ok(()) => {}
            // A destination that is declared no more may be gone for good, and must not keep the
            // new run from starting.
            Err(fault) if is_elsewhere(earlier, orders) && fault.code != FaultCode::Internal => {
                warn!(migration = %key.name, run = %earlier.id, %fault, "the earlier run's \
                     destination could not be cleaned up");
            }
            Err(fault) => return Err(fault),
        }
    }
    match engine.release_source().await {
        Ok(()) => {}
        // As above, of a source.
        Err(fault)
            if earlier.spec.source.connection.uri != orders.spec.source.connection.uri
                && fault.code != FaultCode::Internal =>
        {
            warn!(migration = %key.name, run = %earlier.id, %fault, "the earlier run's source \
                 could not be given its balancer back");
        }
        Err(fault) => return Err(fault),
    }
    supervisor.engines.close(&earlier.id);
    Ok(())
}

/// Whether another migration's run needs the source blocked: the block is one for the whole
/// deployment, and the last lifts it.
async fn is_fenced_by_another(
    run: &RunId,
    spec: &MigrationSpec,
    key: &Key,
    registry: &Registry,
) -> Result<bool, Fault> {
    let records = registry.records().await?;
    let other = records.iter().find(|other| {
        // Of two that lift it at the same time neither may leave it to the other.
        let lifts = || {
            duties(&other.run).iter().any(|effect| matches!(effect, Effect::UnblockSource { .. }))
        };
        other.key != *key
            && other.run.state.may_fence()
            && share_source(&other.spec, spec)
            && !lifts()
    });
    if let Some(other) = other {
        info!(migration = %key.name, %run, other = %other.run.id, "the source stays blocked for \
             another run");
    }
    Ok(other.is_some())
}

/// How giving something back ended. What another daemon has taken over is not this one's to give
/// back, and nothing is left to do.
fn unless_elsewhere(key: &Key, run: &RunId, ended: Result<(), Fault>) -> Result<(), Fault> {
    match ended {
        Err(fault) if fault.code == FaultCode::RunHeldElsewhere => {
            warn!(migration = %key.name, %run, %fault, "left to whoever holds the run");
            Ok(())
        }
        ended => ended,
    }
}

fn is_elsewhere(earlier: &EarlierRun, orders: &Orders) -> bool {
    earlier.spec.destination.connection.uri != orders.spec.destination.connection.uri
}
