//! Gives a run's two sides back without its own folder: the source takes writes again, and others
//! may write to the destination.
//!
//! It needs the declaration and the servers. So it works where the run's folder is on a full disk,
//! damaged or gone.

use std::future::Future;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use schemas::fault::{Fault, FaultCode};

use super::fence;
use crate::engine::destination::guard;
use crate::engine::source::behind_router::Manner;
use crate::engine::{EngineContext, Relief, source};
use crate::memory::Memory;
use crate::mongo::{Deployment, Side, connect};

/// What gives back one run's sides.
#[derive(Debug)]
pub struct Bare {
    /// The run.
    pub context: EngineContext,
    /// The large buffers.
    pub memory: Memory,
}

impl Bare {
    async fn destination(&self) -> Result<Arc<Deployment>, Fault> {
        let (spec, tag) = (&self.context.spec, self.context.run.as_str());
        let destination =
            connect(Side::Destination, &spec.destination.connection, None, tag).await?;
        Ok(Arc::new(destination.within(&self.memory)))
    }

    /// The destination as the run's own user, where it can have one.
    async fn writer(&self, destination: &Arc<Deployment>) -> Result<Arc<Deployment>, Fault> {
        if !destination.is_authenticated {
            return Ok(Arc::clone(destination));
        }
        let (spec, tag) = (&self.context.spec, self.context.run.as_str());
        match guard::make_user(destination, &self.context.run).await? {
            None => Ok(Arc::clone(destination)),
            Some(login) => {
                let writer =
                    connect(Side::Destination, &spec.destination.connection, Some(&login), tag)
                        .await?;
                Ok(Arc::new(writer.within(&self.memory)))
            }
        }
    }
}

impl Relief for Bare {
    fn unblock_source(&self) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            let (spec, tag) = (&self.context.spec.source.connection, self.context.run.as_str());
            let entry = Arc::new(connect(Side::Source, spec, None, tag).await?);
            // Without it every shard is looked at directly.
            let manner = Manner::kept(&self.context.run_dir, &[]).ok().flatten();
            fence::lift(&entry, source::holders(&entry, spec, manner)).await
        })
    }

    fn open_destination(&self) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            let destination = self.destination().await?;
            open(&self.context, &destination, self.writer(&destination)).await
        })
    }
}

/// Whether others are kept from writing to the destination.
pub async fn blocks_destination(
    context: &EngineContext,
    destination: &Deployment,
) -> Result<bool, Fault> {
    let wanted = context.spec.destination.block_writes.unwrap_or(true);
    let able = destination.is_authenticated && destination.version >= guard::WRITE_BLOCK;
    Ok(wanted && able && guard::may_block(destination).await?)
}

/// What a person with a shell is told on the destination.
#[must_use]
pub fn marker(context: &EngineContext, blocks_writes: bool) -> guard::Marker<'_> {
    guard::Marker {
        run: &context.run,
        migration: &context.spec.name,
        workspace: &context.workspace,
        scope: &context.spec.namespaces.scope,
        blocks_writes,
    }
}

/// Lets others write to the destination. `writer` is connected only where there is something to do.
pub async fn open(
    context: &EngineContext,
    destination: &Deployment,
    writer: impl Future<Output = Result<Arc<Deployment>, Fault>>,
) -> Result<(), Fault> {
    // The declared user may have been made for this; the run's own has it among its few privileges.
    let blocked = guard::is_write_blocked(destination).await?;
    // Lifting it twice does no harm, taking it for lifted does: where this run says that it blocks,
    // what is seen does not count. Where it does not and the destination is open there is nothing
    // to do, and no user to be made for it.
    let is_ours = guard::says_that_it_blocks(destination, &context.run).await?;
    if is_ours || (blocked != Some(false) && blocks_destination(context, destination).await?) {
        let writer = writer.await?;
        guard::set_write_block(&writer, false)
            .await
            .map_err(|e| writer.fault("letting others write", &e))?;
        // A run whose window has closed leaves it behind, and must not be taken for one that keeps
        // others out.
        guard::note_block(&writer, &context.run, false).await?;
    }
    // Without the privilege to look, the writes that were applied are the proof.
    if guard::is_write_blocked(destination).await? == Some(true) {
        let message = format!(
            "the destination ({}) blocks its users' writes, which this run did not do",
            destination.hosts
        );
        return Err(Fault::new(FaultCode::DestinationWriteFailed, message)
            .with_remedy("lift it with setUserWriteBlockMode { global: false }"));
    }
    Ok(())
}
