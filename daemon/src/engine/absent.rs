//! The engine of a daemon that was built without one: refuses every run.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use schemas::fault::{Fault, FaultCode};
use schemas::observed::Inspection;
use schemas::spec::MigrationSpec;

use super::{Engine, EngineContext, RunEngine};

pub(super) struct Absent;

impl Engine for Absent {
    fn inspect<'a>(&'a self, _spec: &'a MigrationSpec) -> BoxFuture<'a, Inspection> {
        Box::pin(std::future::ready(Inspection {
            checks: Vec::new(),
            forecast: None,
            drops: Vec::new(),
            destination_access_control: None,
        }))
    }

    fn open(&self, context: EngineContext) -> Result<Arc<dyn RunEngine>, Fault> {
        Err(Fault::new(FaultCode::NotSupportedYet, format!("run {} needs an engine, and this daemon has none", context.run)))
    }
}
