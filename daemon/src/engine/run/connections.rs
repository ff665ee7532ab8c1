//! The connections of a run: made when they are first needed, and anew where the files that they
//! are made with have changed.

use std::sync::{Arc, PoisonError};

use schemas::fault::{Fault, FaultCode};

use super::identity::Identity;
use super::{MongoRun, Pair};
use crate::engine::destination::guard;
use crate::engine::source::Source;
use crate::engine::source::behind_router::Manner;
use crate::mongo::{Deployment, Side, connect, connection_files};

impl MongoRun {
    /// Lets go of connections that were made with files that have changed since. Gives the files'
    /// digest.
    pub(super) async fn renew_connections(&self) -> Option<String> {
        let now = connection_files::digest(&self.context.spec);
        let before = std::mem::replace(
            &mut *self.files.lock().unwrap_or_else(PoisonError::into_inner),
            now.clone(),
        );
        if before != now {
            *self.writer.lock().await = None;
            *self.destination.lock().await = None;
            *self.source.lock().await = None;
        }
        now
    }

    pub(in crate::engine) async fn source(&self) -> Result<Arc<Source>, Fault> {
        let mut kept = self.source.lock().await;
        if kept.is_none() {
            let (spec, tag) = (&self.context.spec, self.context.run.as_str());
            let manner = self.manner()?;
            let source =
                Source::connect(&spec.source.connection, tag, &self.memory, manner.clone()).await?;
            if source.is_sharded() && manner.is_none() {
                if let Manner::ThroughRouter { unreached } = &source.manner {
                    for (shard, why) in unreached {
                        tracing::warn!(%shard, why, "not reached; the run reads all shards \
                             through the router");
                    }
                }
                source.manner.keep(&self.context.run_dir)?;
            }
            *kept = Some(Arc::new(source));
        }
        kept.clone().ok_or_else(|| {
            Fault::new(FaultCode::Internal, "a connection that was just made is gone")
        })
    }

    /// How the run reads a sharded source; `None`: it has not chosen.
    pub(super) fn manner(&self) -> Result<Option<Manner>, Fault> {
        let read: Vec<_> =
            self.progress.shards().iter().map(|shard| shard.name().clone()).collect();
        Manner::kept(&self.context.run_dir, &read)
    }

    /// What answers for the whole source, also while a shard behind it does not.
    pub(super) async fn entry(&self) -> Result<Arc<Deployment>, Fault> {
        // Whoever holds it may wait for a shard.
        if let Some(source) = self.source.try_lock().ok().and_then(|kept| kept.clone()) {
            return Ok(Arc::clone(&source.entry));
        }
        let (spec, tag) = (&self.context.spec, self.context.run.as_str());
        connect(Side::Source, &spec.source.connection, None, tag).await.map(Arc::new)
    }

    pub(in crate::engine) async fn destination(&self) -> Result<Arc<Deployment>, Fault> {
        let mut kept = self.destination.lock().await;
        if kept.is_none() {
            let (spec, tag) = (&self.context.spec, self.context.run.as_str());
            let destination =
                connect(Side::Destination, &spec.destination.connection, None, tag).await?;
            *kept = Some(Arc::new(destination.within(&self.memory)));
        }
        kept.clone().ok_or_else(|| {
            Fault::new(FaultCode::Internal, "a connection that was just made is gone")
        })
    }

    /// The destination for whatever a run writes there, until it is cleaned up: as the run's own
    /// user where it can have one.
    pub(in crate::engine) async fn writer(&self) -> Result<Arc<Deployment>, Fault> {
        let destination = self.destination().await?;
        let mut kept = self.writer.lock().await;
        if kept.is_none() {
            let login = if destination.is_authenticated {
                guard::make_user(&destination, &self.context.run).await?
            } else {
                None
            };
            let writer = match login {
                None => destination,
                Some(login) => {
                    let (spec, tag) = (&self.context.spec, self.context.run.as_str());
                    tracing::info!(user = login.username, "the run writes as a user of its own");
                    let writer =
                        connect(Side::Destination, &spec.destination.connection, Some(&login), tag)
                            .await?;
                    Arc::new(writer.within(&self.memory))
                }
            };
            *kept = Some(Arc::new(Deployment {
                observer: Some(self.verifier.observer()),
                ..(*writer).clone()
            }));
        }
        kept.clone().ok_or_else(|| {
            Fault::new(FaultCode::Internal, "a connection that was just made is gone")
        })
    }

    /// What knows whether both sides are what they were.
    pub(in crate::engine) async fn identity(&self, pair: &Pair) -> Result<Arc<Identity>, Fault> {
        Ok(Arc::new(Identity {
            source: Arc::clone(&pair.source),
            destination: self.destination().await?,
            writer: Arc::clone(&pair.destination),
            spec: Arc::clone(&self.context.spec),
            checkpoints: self.checkpoints.clone(),
            run: self.context.run.clone(),
        }))
    }

    /// Both sides, for what a run does until it is cleaned up.
    pub(in crate::engine) async fn pair(&self) -> Result<Pair, Fault> {
        Ok(Pair { source: self.source().await?, destination: self.writer().await? })
    }
}
