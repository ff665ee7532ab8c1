//! Acts by hand, for emergencies; the next plan shows them as drift.

use lifecycle::{By, Event, Opened};
use schemas::fault::{Fault, FaultCode};
use schemas::history::Actor;
use schemas::id::{MigrationName, ShardName, Workspace};

use super::thread::{Book, pick};
use crate::engine::EngineProgress;

/// What somebody does to a migration by hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ByHandAct {
    /// Hold it.
    Pause,
    /// Let it go on, or try a failed one again.
    Resume,
    /// Stop it for good.
    Cancel,
    /// End a cutover that finalizing cannot end, with this side.
    Open(Opened),
    /// Add 24 h to its window, each.
    Extend(u32),
    /// Start one shard's sync again.
    RestartShard(ShardName),
}

/// Refuses a shard that a run does not have, and names those that it has.
pub fn check_shard(
    progress: Option<EngineProgress>,
    name: &MigrationName,
    shard: &ShardName,
) -> Result<(), Fault> {
    let shards = progress.map(|progress| progress.shards).unwrap_or_default();
    if shards.iter().any(|known| known.name == *shard) {
        return Ok(());
    }
    let known: Vec<&str> = shards.iter().map(|known| known.name.0.as_str()).collect();
    let remedy = if known.is_empty() {
        "none is known yet: wait until the run copies".to_owned()
    } else {
        format!("its shards are: {}", known.join(", "))
    };
    Err(Fault::new(FaultCode::WrongState, format!("{name} has no shard {shard}"))
        .with_remedy(remedy))
}

/// A year of extensions: whoever needs more has mistyped.
const MOST_EXTENSIONS: u32 = 365;

impl Book {
    pub(super) fn act(
        &mut self,
        workspace: Option<&Workspace>,
        name: &MigrationName,
        act: ByHandAct,
        actor: &Actor,
    ) -> Result<String, Fault> {
        let workspaces = self
            .held
            .keys()
            .filter(|key| key.name == *name)
            .map(|key| key.workspace.clone())
            .collect();
        let key = pick(workspace, name, workspaces)?;
        let Some(held) = self.held.get(&key) else {
            return Err(Fault::new(
                FaultCode::UnknownMigration,
                format!("there is no migration {name}"),
            ));
        };
        let actor = actor.clone();
        let event = match act {
            ByHandAct::Pause => Event::Pause { by: By::Hand, actor },
            ByHandAct::Resume => Event::Resume { by: By::Hand, actor },
            ByHandAct::Cancel => Event::Cancel { by: By::Hand, actor },
            ByHandAct::Open(side) => Event::Open { side, actor },
            ByHandAct::Extend(extensions) => {
                if !(1..=MOST_EXTENSIONS).contains(&extensions) {
                    return Err(Fault::new(
                        FaultCode::InvalidConfiguration,
                        format!(
                            "a window is extended by 1 to {MOST_EXTENSIONS} times 24 h, not \
                             {extensions}"
                        ),
                    )
                    .with_remedy("extend by whole days, such as --by 24h"));
                }
                Event::Extend { extensions, actor }
            }
            ByHandAct::RestartShard(shard) => {
                check_shard(self.parts.engines.progress(&held.record.run.id), name, &shard)?;
                Event::RestartSync { shard, actor }
            }
        };
        let phase = held.record.run.phase();
        let staged = self.stage(&held.record, event)?;
        // The words of the journal are the answer's too.
        let message = match staged.change.notes.last() {
            Some(note) => format!("{name}: {}", note.message),
            None => format!("{name} is {phase} already"),
        };
        self.commit(vec![staged])?;
        Ok(message)
    }
}
