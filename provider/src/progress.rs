//! Shows runs as they go on: bars on a terminal, a line now and then elsewhere.

use std::collections::BTreeMap;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use schemas::id::{MigrationName, ShardName, Workspace};
use schemas::phase::Phase;
use schemas::status::{MigrationStatus, ShardStatus};
use tokio::time::Instant;

use crate::render::{clean, status};
use crate::units;

/// How long a line stands before figures alone are worth another one.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

type Key = (Workspace, MigrationName);

/// Bars: one of text a migration, and one a shard with what it has copied, then with its lag.
#[derive(Debug)]
pub struct Bars {
    all: MultiProgress,
    migrations: BTreeMap<Key, (ProgressBar, BTreeMap<ShardName, ProgressBar>)>,
}

impl Bars {
    /// Bars that are drawn on `target`.
    #[must_use]
    pub fn new(target: ProgressDrawTarget) -> Self {
        Self { all: MultiProgress::with_draw_target(target), migrations: BTreeMap::new() }
    }

    /// Draws the statuses; a migration that is gone loses its bars.
    pub fn show(&mut self, statuses: &[MigrationStatus]) {
        let gone: Vec<Key> = self
            .migrations
            .keys()
            .filter(|key| !statuses.iter().any(|one| key_of(one) == **key))
            .cloned()
            .collect();
        for key in gone {
            if let Some((head, shards)) = self.migrations.remove(&key) {
                shards.values().for_each(ProgressBar::finish_and_clear);
                head.finish_and_clear();
            }
        }
        // Names of shards may differ at their ends alone: none is cut.
        let widest = statuses
            .iter()
            .flat_map(|one| &one.shards)
            .map(|shard| clean(&shard.name.0).chars().count())
            .max();
        let widest = widest.unwrap_or_default();
        for one in statuses {
            let (head, shards) = self.migrations.entry(key_of(one)).or_insert_with(|| {
                let style = ProgressStyle::with_template("{msg}").expect("a fixed template");
                (self.all.add(ProgressBar::no_length().with_style(style)), BTreeMap::new())
            });
            head.set_message(head_line(one));
            let mut above = head.clone();
            for shard in &one.shards {
                let bar = shards.entry(shard.name.clone()).or_insert_with(|| {
                    let style = ProgressStyle::with_template("  {prefix} [{bar:30}] {msg}")
                        .expect("a fixed template");
                    self.all.insert_after(
                        &above,
                        ProgressBar::new(0).with_style(style.progress_chars("=> ")),
                    )
                });
                bar.set_prefix(format!("{:widest$}", clean(&shard.name.0)));
                bar.set_length(shard.copy.bytes_total.max(1));
                let done = shard.phase > Phase::Copying && shard.phase <= Phase::Completed;
                bar.set_position(if done {
                    shard.copy.bytes_total.max(1)
                } else {
                    shard.copy.bytes_copied
                });
                bar.set_message(shard_message(shard));
                above = bar.clone();
            }
        }
    }

    /// Leaves the bars as they stand.
    pub fn finish(&self) {
        for (head, shards) in self.migrations.values() {
            shards.values().for_each(ProgressBar::abandon);
            head.abandon();
        }
    }
}

/// The line of a migration; a shard's error stands with the shard.
fn head_line(status: &MigrationStatus) -> String {
    if status.shards.iter().all(|shard| shard.error.is_none()) {
        return status::line(status);
    }
    status::line(&MigrationStatus { error: None, ..status.clone() })
}

fn shard_message(shard: &ShardStatus) -> String {
    if let Some(fault) = &shard.error {
        return clean(&fault.to_string());
    }
    let copied = format!(
        "{} of {}",
        units::bytes(shard.copy.bytes_copied),
        units::bytes(shard.copy.bytes_total)
    );
    match (shard.phase, shard.lag_seconds) {
        (Phase::Validating | Phase::Copying, _) | (_, None) => copied,
        (_, Some(lag)) => {
            format!("lag {}, {:.0} events/s", units::seconds(lag), shard.tail.events_per_second)
        }
    }
}

/// Lines: one whenever something changes that matters, and now and then for the figures.
#[derive(Debug, Default)]
pub struct Lines {
    last: BTreeMap<Key, (String, String, Instant)>,
}

impl Lines {
    /// The lines that are worth printing now.
    pub fn news(&mut self, statuses: &[MigrationStatus]) -> Vec<String> {
        let mut news = Vec::new();
        for one in statuses {
            let (state, line) = (state(one), status::line(one));
            let worth = match self.last.get(&key_of(one)) {
                None => true,
                Some((old_state, old_line, at)) => {
                    *old_state != state || (*old_line != line && at.elapsed() >= LINE_INTERVAL)
                }
            };
            if worth {
                news.push(line.clone());
                self.last.insert(key_of(one), (state, line, Instant::now()));
            }
        }
        for (_, name) in
            self.last.keys().filter(|key| !statuses.iter().any(|one| key_of(one) == **key))
        {
            news.push(format!("{name}: gone"));
        }
        self.last.retain(|key, _| statuses.iter().any(|one| key_of(one) == *key));
        news
    }
}

/// What of a status is worth a line of its own when it changes.
fn state(status: &MigrationStatus) -> String {
    let error = status.error.as_ref().map(ToString::to_string);
    format!(
        "{} {} {} {:?} {error:?}",
        status.phase, status.paused, status.ready.value, status.acknowledge_token
    )
}

fn key_of(status: &MigrationStatus) -> Key {
    (status.workspace.clone(), status.name.clone())
}
