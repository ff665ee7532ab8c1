//! The file system's word that something happens in a directory. It only says when to look: what is
//! there is read anew.

use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;
use tracing::warn;

/// Happenings that may wait; more say no more than these.
const WAITING: usize = 16;

/// A directory that changes without a pause is looked at after this many happenings all the same.
const MOST: usize = 1_000;

/// What reports changes.
pub(super) struct Nudges {
    directory: PathBuf,
    /// Where the directory really is, as it is watched now: a link to it can be led elsewhere.
    target: Option<PathBuf>,
    watcher: Option<RecommendedWatcher>,
    happenings: mpsc::Receiver<()>,
    /// Held so that waiting goes on where nothing can be watched.
    _sender: mpsc::Sender<()>,
}

impl Nudges {
    /// Of a directory, and of its name in the folder around it.
    pub(super) fn of(directory: &Path) -> Self {
        let (sender, happenings) = mpsc::channel(WAITING);
        let watched = directory.to_owned();
        let tell = sender.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let counts = match &event {
                Ok(event) => {
                    !event.kind.is_access()
                        && event.paths.iter().any(|path| path.starts_with(&watched))
                }
                // Some were lost.
                Err(_) => true,
            };
            if counts {
                // One that does not fit is one of many.
                let _ = tell.try_send(());
            }
        });
        let watcher = watcher
            .map_err(|error| {
                warn!(directory = %directory.display(), %error, "changes are found \
                 by looking from time to time")
            })
            .ok();
        let mut nudges = Self {
            directory: directory.to_owned(),
            target: None,
            watcher,
            happenings,
            _sender: sender,
        };
        if let (Some(watcher), Some(around)) = (&mut nudges.watcher, directory.parent())
            && let Err(error) = watcher.watch(around, RecursiveMode::NonRecursive)
        {
            warn!(directory = %around.display(), %error, "a directory that is replaced is found \
                 by looking from time to time");
        }
        nudges.follow();
        nudges
    }

    /// Watches the directory that the name leads to now.
    fn follow(&mut self) {
        let target = std::fs::canonicalize(&self.directory).ok();
        if target == self.target {
            return;
        }
        if let Some(watcher) = &mut self.watcher {
            if self.target.is_some() {
                // It went with the directory, most often.
                let _ = watcher.unwatch(&self.directory);
            }
            if target.is_some()
                && let Err(error) = watcher.watch(&self.directory, RecursiveMode::NonRecursive)
            {
                warn!(directory = %self.directory.display(), %error, "changes are found by \
                     looking from time to time");
            }
        }
        self.target = target;
    }

    /// Waits for something to happen and then for `quiet`; at the longest for `pause`, where
    /// nothing does.
    pub(super) async fn wait(&mut self, pause: Duration, quiet: Duration) {
        if tokio::time::timeout(pause, self.happenings.recv()).await.is_ok() {
            let mut happened = 1;
            while happened < MOST
                && tokio::time::timeout(quiet, self.happenings.recv()).await.is_ok()
            {
                happened += 1;
            }
        }
        self.follow();
    }
}
