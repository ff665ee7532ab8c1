//! Leaves out of a failing plan what it fails without: halves first, then smaller parts.

use anyhow::Result;

use super::{Plan, hold};
use crate::replica_set::harness::Pair;

/// How often a plan is tried before it is taken to pass: what fails depends on time, too.
const TRIES: usize = 2;

async fn fails(plan: &Plan, source: Option<&str>) -> Result<bool> {
    for _ in 0..TRIES {
        let pair = Pair::start_from(source).await?;
        if hold(&pair, plan).await.is_err() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Prints the smallest plan that was found to fail, on a source of this version.
pub(super) async fn shrink(plan: Plan, source: Option<&str>) -> Result<()> {
    let mut plan = plan;
    let mut parts = 2;
    while parts <= plan.operations() {
        let mut shrunk = false;
        for part in 0..parts {
            let tried = plan.without(part, parts);
            if tried.operations() < plan.operations() && fails(&tried, source).await? {
                println!("  fails with {} operations", tried.operations());
                (plan, shrunk) = (tried, true);
                break;
            }
        }
        if !shrunk {
            parts *= 2;
        }
    }
    println!("smallest plan that fails: {plan:#?}");
    Ok(())
}
