//! Declared changes: what differs from what was last applied becomes events, and all of it is
//! journaled or none.

use std::sync::Arc;

use lifecycle::{By, Event, Now, Run, Settings, State, Token, begin, duties, succeed};
use schemas::fault::{Fault, FaultCode};
use schemas::history::{Actor, EntryKind};
use schemas::id::{MigrationName, RunId, Serial, Workspace};
use schemas::namespace::Namespace;
use schemas::spec::MigrationSpec;
use schemas::spec::attribute::{Mutability, differing};

use super::overlap::refuse_overlap;
use super::thread::{Book, NO_SERIAL, Staged, advance};

use crate::journal::{Change, Key, Record};
use crate::open_runs::works_by;

/// One declared change.
#[derive(Debug, Clone)]
pub struct DeclaredChange {
    /// The migration.
    pub name: MigrationName,
    /// The serial that it was planned on; 0 for one that did not exist.
    pub expected: Serial,
    /// The declaration; `None`: its block is gone.
    pub spec: Option<MigrationSpec>,
    /// Namespaces on the destination that the plan listed as dropped.
    pub drops: Vec<Namespace>,
}

/// A change that was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The migration.
    pub name: MigrationName,
    /// Its serial now.
    pub serial: Serial,
    /// Its run.
    pub run: RunId,
}

impl Book {
    pub(super) fn apply(
        &mut self,
        workspace: &Workspace,
        changes: Vec<DeclaredChange>,
        actor: &Actor,
    ) -> Result<Vec<Applied>, Fault> {
        let mut staged = Vec::new();
        let mut applied = Vec::new();
        let mut names = Vec::new();
        for change in changes {
            if names.contains(&change.name) {
                return Err(Fault::new(
                    FaultCode::InvalidConfiguration,
                    format!("migration {} is changed twice at once", change.name),
                ));
            }
            names.push(change.name.clone());
            let (answer, work) = self.stage_change(workspace, change, actor)?;
            applied.push(answer);
            staged.extend(work);
        }
        refuse_overlap(self.held.values().map(|held| &held.record), &staged)?;
        self.commit(staged)?;
        Ok(applied)
    }

    fn stage_change(
        &self,
        workspace: &Workspace,
        change: DeclaredChange,
        actor: &Actor,
    ) -> Result<(Applied, Option<Staged>), Fault> {
        let key = Key { workspace: workspace.clone(), name: change.name };
        let known = self.held.get(&key).map(|held| &held.record);
        if let Some(spec) = &change.spec
            && spec.name != key.name
        {
            return Err(Fault::new(
                FaultCode::InvalidConfiguration,
                format!("the declaration of {} names {}", key.name, spec.name),
            ));
        }
        // The same again is no change, whatever it was planned on: a lost answer may be asked for
        // twice.
        if let (Some(known), Some(spec)) = (known, &change.spec)
            && *known.spec == *spec
            && known.declared
            && known.run.paused_by_hand.is_none()
            && !matches!(known.run.state, State::Cancelled { .. })
        {
            return Ok((answer(known), None));
        }
        let serial = known.map_or(NO_SERIAL, |known| known.serial);
        if change.expected != serial {
            return Err(Fault::new(
                FaultCode::PlanOutdated,
                format!(
                    "migration {} has serial {serial}, and the plan was made on {}",
                    key.name, change.expected
                ),
            ));
        }
        let staged = match (known, change.spec) {
            (None, None) => {
                return Err(Fault::new(
                    FaultCode::UnknownMigration,
                    format!("there is no migration {} to remove", key.name),
                ));
            }
            (None, Some(spec)) => self.create(key, spec, change.drops, actor)?,
            (Some(known), None) => self.remove(known, actor)?,
            (Some(known), Some(spec)) if known.run.forgetting => {
                return Err(Fault::new(
                    FaultCode::WrongState,
                    format!("run {} of {} is being forgotten", known.run.id, spec.name),
                )
                .with_remedy("apply again when `cutover status` lists it no more"));
            }
            (Some(known), Some(spec)) => {
                let (old, new) = (known.run.generation, spec.generation);
                if new > old {
                    self.rerun(known, spec, change.drops, actor)?
                } else if new < old {
                    return Err(Fault::new(
                        FaultCode::ImmutableAttribute,
                        format!("generation of {} goes from {old} back to {new}", spec.name),
                    )
                    .with_remedy("generations only rise"));
                } else {
                    self.update(known, spec, actor)?
                }
            }
        };
        let answer = match &staged.change.record {
            Some(record) => answer(record),
            None => Applied {
                name: staged.change.key.name.clone(),
                serial: serial.next(),
                run: staged.change.run.clone(),
            },
        };
        Ok((answer, Some(staged)))
    }

    fn create(
        &self,
        key: Key,
        spec: MigrationSpec,
        drops: Vec<Namespace>,
        actor: &Actor,
    ) -> Result<Staged, Fault> {
        refuse_token(&spec)?;
        let id = RunId::new(&key.name, spec.generation, rand::random());
        let mut run = begin(id, &spec, self.parts.clock.now());
        run.agreed_drops = drops;
        let note = applied_note(format!("declared, generation {}", spec.generation), actor);
        Ok(Staged {
            orders: Some(duties(&run)),
            change: Change {
                key: key.clone(),
                run: run.id.clone(),
                record: Some(Record {
                    key,
                    serial: NO_SERIAL.next(),
                    declared: true,
                    spec: Arc::new(spec),
                    run,
                }),
                notes: vec![note],
            },
        })
    }

    fn rerun(
        &self,
        known: &Record,
        spec: MigrationSpec,
        drops: Vec<Namespace>,
        actor: &Actor,
    ) -> Result<Staged, Fault> {
        refuse_token(&spec)?;
        let created = self.created(&known.run.id);
        let id = RunId::new(&spec.name, spec.generation, rand::random());
        let mut run = succeed(&known.run, &known.spec, created, id, &spec, self.parts.clock.now())
            .map_err(|refusal| refusal.fault())?;
        run.agreed_drops = drops;
        let message = match run.replaces().len() {
            0 => format!("generation {} takes over from {}", spec.generation, known.run.id),
            1 => format!(
                "generation {} takes over from {}, of which 1 namespace is dropped",
                spec.generation, known.run.id
            ),
            some => {
                format!(
                    "generation {} takes over from {}, of which {some} namespaces are dropped",
                    spec.generation, known.run.id
                )
            }
        };
        let note = applied_note(message, actor);
        Ok(Staged {
            orders: Some(duties(&run)),
            change: Change {
                key: known.key.clone(),
                run: run.id.clone(),
                record: Some(Record {
                    key: known.key.clone(),
                    serial: known.serial.next(),
                    declared: true,
                    spec: Arc::new(spec),
                    run,
                }),
                notes: vec![note],
            },
        })
    }

    fn remove(&self, known: &Record, actor: &Actor) -> Result<Staged, Fault> {
        let actor = actor.clone();
        let event = match &known.run.state {
            State::Completed { .. } | State::Cancelled { .. } => Event::Forget { actor },
            State::Validating { .. }
            | State::Copying { .. }
            | State::CatchingUp { .. }
            | State::Ready
            | State::Draining { .. }
            | State::Finalizing { .. }
            | State::Paused { .. }
            | State::Failed { .. }
            | State::Expired { .. } => Event::Cancel { by: By::Declaration, actor },
        };
        let taken = advance(&known.run, event, self.parts.clock.now())?;
        Ok(Staged {
            orders: taken.orders,
            change: Change {
                key: known.key.clone(),
                run: known.run.id.clone(),
                record: (!taken.forget).then(|| Record {
                    serial: known.serial.next(),
                    declared: false,
                    run: taken.run,
                    ..known.clone()
                }),
                notes: taken.notes,
            },
        })
    }

    fn update(&self, known: &Record, spec: MigrationSpec, actor: &Actor) -> Result<Staged, Fault> {
        if !known.declared || matches!(known.run.state, State::Cancelled { .. }) {
            return Err(Fault::new(
                FaultCode::WrongState,
                format!("run {} of {} was cancelled, and does not go on", known.run.id, spec.name),
            )
            .with_remedy("raise `generation` to run again from scratch"));
        }
        let immutable = changed(&known.spec, &spec, Mutability::NeedsNewGeneration);
        if !immutable.is_empty() {
            return Err(Fault::new(
                FaultCode::ImmutableAttribute,
                format!(
                    "{} of {} cannot change on a run that exists",
                    immutable.join(", "),
                    spec.name
                ),
            ));
        }
        let now = self.parts.clock.now();
        let mut walk = Walk { run: known.run.clone(), orders: None, notes: Vec::new(), now };
        let others = changed(&known.spec, &spec, Mutability::Mutable);
        if !others.is_empty() {
            walk.take(Event::Declare {
                settings: Settings::from(&spec),
                digest: spec.digest(),
                resync: works_by(&spec) != works_by(&known.spec),
                what: format!("changed: {}", others.join(", ")),
                actor: actor.clone(),
            })?;
        }
        if spec.paused != known.spec.paused || known.run.paused_by_hand.is_some() {
            let paused = matches!(walk.run.state, State::Paused { .. });
            let actor = actor.clone();
            match (spec.paused, paused) {
                (true, _) => walk.take(Event::Pause { by: By::Declaration, actor })?,
                (false, true) => walk.take(Event::Resume { by: By::Declaration, actor })?,
                // Nothing holds it: what it is in has its own ways on.
                (false, false) => walk.run.paused_by_hand = None,
            }
        }
        if spec.cutover.acknowledge != known.spec.cutover.acknowledge
            && let Some(token) = &spec.cutover.acknowledge
        {
            walk.take(Event::Acknowledge { token: Token::given(token), actor: actor.clone() })?;
        }
        if walk.notes.is_empty() {
            walk.notes.push(applied_note("changed: cutover.acknowledge".to_owned(), actor));
        }
        let record = Record {
            key: known.key.clone(),
            serial: known.serial.next(),
            declared: true,
            spec: Arc::new(spec),
            run: walk.run,
        };
        Ok(Staged {
            orders: walk.orders,
            change: Change {
                key: known.key.clone(),
                run: record.run.id.clone(),
                record: Some(record),
                notes: walk.notes,
            },
        })
    }
}

/// Several events that are journaled as one change.
struct Walk {
    run: Run,
    orders: Option<Vec<lifecycle::Effect>>,
    notes: Vec<lifecycle::Note>,
    now: Now,
}

impl Walk {
    fn take(&mut self, event: Event) -> Result<(), Fault> {
        let taken = advance(&self.run, event, self.now)?;
        self.run = taken.run;
        self.orders = taken.orders.or(self.orders.take());
        self.notes.extend(taken.notes);
        Ok(())
    }
}

fn answer(record: &Record) -> Applied {
    Applied { name: record.key.name.clone(), serial: record.serial, run: record.run.id.clone() }
}

fn applied_note(message: String, actor: &Actor) -> lifecycle::Note {
    lifecycle::Note {
        kind: EntryKind::Applied,
        from: None,
        to: None,
        actor: Some(actor.clone()),
        message,
    }
}

/// A run that does not exist yet has no token.
fn refuse_token(spec: &MigrationSpec) -> Result<(), Fault> {
    match &spec.cutover.acknowledge {
        None => Ok(()),
        Some(_) => Err(Fault::new(
            FaultCode::WrongToken,
            format!("cutover.acknowledge of {} cannot be a new run's token", spec.name),
        )
        .with_remedy("leave cutover.acknowledge out until the new run is ready")),
    }
}

/// The attributes that differ and of which a change means this, by path; of a block that changes as
/// one its name.
fn changed(old: &MigrationSpec, new: &MigrationSpec, mutability: Mutability) -> Vec<String> {
    let differing = differing(old, new).into_iter().filter(|one| one.mutability == mutability);
    let mut paths: Vec<String> = differing
        .map(|one| {
            let is_within = |block: &&&str| one.path.starts_with(&format!("{block}."));
            let block = ["source.tls", "destination.tls", "namespaces", "sharding", "verify"];
            block.iter().find(is_within).map_or(one.path.clone(), |block| (*block).to_owned())
        })
        .collect();
    paths.dedup();
    paths
}
