//! Whether writes can be blocked: the application's on the source at the cutover, and others' on
//! the destination until then.

use std::collections::BTreeSet;

use schemas::fault::{Fault, FaultCode};
use schemas::id::RunId;
use schemas::observed::Outcome;
use schemas::spec::{MigrationSpec, SourceWrites};

use super::Findings;
use super::environment::{self, BLOCKS_WRITES};
use crate::engine::cutover::open_transactions::{self, Found, words};
use crate::engine::destination::guard::{self, WRITE_BLOCK};
use crate::mongo::Deployment;

/// Why a deployment cannot block writes at all.
async fn unavailable(deployment: &Deployment) -> Option<String> {
    if deployment.version < WRITE_BLOCK {
        return Some(format!("MongoDB {}, and that needs {WRITE_BLOCK}", deployment.version));
    }
    // Where it may not be read, the check of that says so.
    let (major, minor) = environment::compatibility_of(deployment)
        .await
        .filter(|version| *version < BLOCKS_WRITES)?;
    Some(format!(
        "of feature compatibility version {major}.{minor}, and that needs {}.{}",
        BLOCKS_WRITES.0, BLOCKS_WRITES.1
    ))
}

/// Whether the source's writes can be blocked at the cutover, and are not already.
pub(super) async fn source(findings: &mut Findings, source: &Deployment, spec: &MigrationSpec) {
    let name = "write_block";
    if spec.cutover.source_writes == SourceWrites::Observe {
        return findings.note(name, Outcome::Ok, "not used: the source's writes are observed");
    }
    if let Some(why) = unavailable(source).await {
        let message = format!("the source's writes cannot be blocked: it is {why}");
        let remedy = "bring the source up to that, or set cutover.source_writes = \"observe\"";
        return findings.fail(
            name,
            &Fault::new(FaultCode::WriteBlockUnavailable, message).with_remedy(remedy),
        );
    }
    match guard::is_write_blocked(source).await {
        Ok(Some(true)) => findings.warn(
            name,
            "the source's writes are blocked already, and there is one block for a whole \
             deployment: a cutover that is undone opens the source, whoever closed it",
            "keep the application stopped by other means if it must not write, or lift the block \
             (setUserWriteBlockMode)",
        ),
        Ok(Some(false)) => {
            findings.note(name, Outcome::Ok, "the source can block writes (setUserWriteBlockMode)")
        }
        Ok(None) => findings.warn(
            name,
            "the source can block writes; whether somebody does so already may not be read \
             (serverStatus)",
            "grant clusterMonitor on the source",
        ),
        Err(fault) => findings.fail(name, &fault),
    }
}

/// Whether transactions are open for so long that a block of the writes would have to wait for
/// them.
pub(super) async fn transactions(findings: &mut Findings, spec: &MigrationSpec) {
    let name = "open_transactions";
    if spec.cutover.source_writes == SourceWrites::Observe {
        return;
    }
    let followed = findings.followed();
    let shards: Vec<_> = followed.iter().map(|(name, shard)| (name, shard)).collect();
    match open_transactions::look(&shards).await {
        Ok(Found::Open(open)) if open.is_empty() => {
            findings.note(name, Outcome::Ok, "no transaction has been open on the source for long");
        }
        Ok(Found::Open(open)) => findings.warn(
            name,
            format!(
                "{}; a cutover waits for them before it blocks the writes, and is put off \
                 where they stay",
                words(&open)
            ),
            open_transactions::REMEDY,
        ),
        Ok(Found::Hidden(why)) => findings.warn(
            name,
            format!("{why}, so that transactions that a cutover would wait for are not seen"),
            "grant clusterMonitor on the source",
        ),
        Err(fault) => findings.fail(name, &fault),
    }
}

/// Whether others can be kept from writing to the destination, where that is wanted, and nobody
/// keeps the daemon from it.
pub(super) async fn destination(
    findings: &mut Findings,
    destination: &Deployment,
    spec: &MigrationSpec,
    own: &BTreeSet<RunId>,
) {
    let name = "destination_write_block";
    match foreign_block(destination).await {
        Ok(false) => {}
        Ok(true) => {
            let message =
                "the destination's writes are blocked already, by no run that is under way on it";
            let remedy = "lift the block (setUserWriteBlockMode); of a completed run's source, \
                 with source_after = \"open\"";
            return findings.fail(
                name,
                &Fault::new(FaultCode::WriteBlockUnavailable, message).with_remedy(remedy),
            );
        }
        Err(fault) => return findings.fail(name, &fault),
    }
    let wanted = spec.destination.block_writes;
    let remedy = "leave out destination.block_writes, or set it to false, and keep others from \
         writing there by other means";
    let may_block = match guard::may_block(destination).await {
        Ok(may_block) => may_block,
        Err(fault) => return findings.fail(name, &fault),
    };
    let problem = if wanted == Some(false) {
        return findings.note(name, Outcome::Ok, "not used: block_writes = false");
    } else if !destination.is_authenticated {
        Some("it has no access control, so that it cannot tell this daemon from others".to_owned())
    } else if let Some(why) = unavailable(destination).await {
        Some(format!("it is {why}"))
    } else if !may_block {
        Some(
            "its user may neither make users nor do it itself (setUserWriteBlockMode with \
             bypassWriteBlockingMode)"
                .to_owned(),
        )
    } else {
        None
    };
    match (problem, wanted) {
        (Some(why), Some(true)) => {
            let message = format!("the destination's writes cannot be blocked for others: {why}");
            findings.fail(
                name,
                &Fault::new(FaultCode::WriteBlockUnavailable, message).with_remedy(remedy),
            );
        }
        (Some(why), _) => findings.warn(
            name,
            format!("others can write to the destination during the run: {why}"),
            "keep others from writing there until the cutover; what they write is found, named \
             and compared",
        ),
        (None, _) => match blockers(destination, own).await {
            Ok(others) if others.is_empty() => findings.note(
                name,
                Outcome::Ok,
                "others cannot write to the destination during the run",
            ),
            Ok(others) => findings.fail(
                name,
                &Fault::new(
                    FaultCode::DestinationInUse,
                    format!(
                        "{} blocks the destination's writes already, and the block is one for the \
                         whole deployment",
                        others.join(", ")
                    ),
                )
                .with_remedy(
                    "complete or cancel that run first, or set destination.block_writes \
                     = false on both",
                ),
            ),
            Err(fault) => findings.fail(name, &fault),
        },
    }
}

/// Whether somebody who is no run blocks the destination's writes; a run has its marker there for
/// as long.
async fn foreign_block(destination: &Deployment) -> Result<bool, Fault> {
    // Without the privilege to look, the first write tells.
    if guard::is_write_blocked(destination).await? != Some(true) {
        return Ok(false);
    }
    Ok(blockers(destination, &BTreeSet::new()).await?.is_empty())
}

/// The runs but these that block others' writes.
async fn blockers(destination: &Deployment, own: &BTreeSet<RunId>) -> Result<Vec<String>, Fault> {
    let rivals = guard::rivals(destination, own).await?;
    Ok(rivals.into_iter().filter(|rival| rival.blocks_writes).map(|rival| rival.run).collect())
}
