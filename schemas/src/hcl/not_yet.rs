//! Settings that are known and checked, and whose work comes with a later version: refused with their place, never ignored.
//!
//! To switch one on, delete its line.

use super::diagnostic::Diagnostic;
use crate::fault::FaultCode;

/// When a setting is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// The block is there.
    Present,
    /// The attribute has this value, as text.
    Is(&'static str),
}

/// The settings, by their path in a migration.
pub(crate) const NOT_YET: &[(&str, When)] = &[("copy.indexes", When::Is("before_copy")), ("sharding", When::Present)];

/// Whether the block at this path is refused.
pub(crate) fn refuses_block(path: &str) -> bool {
    NOT_YET.iter().any(|&(known, when)| known == path && when == When::Present)
}

/// Whether the attribute at this path is refused with this value.
pub(crate) fn refuses_value(path: &str, value: &str) -> bool {
    NOT_YET.iter().any(|&(known, when)| {
        known == path
            && match when {
                When::Present => false,
                When::Is(refused) => refused == value,
            }
    })
}

/// What is said of a block that is refused.
pub(crate) fn block_diagnostic(name: &str) -> Diagnostic {
    let detail = "Its work comes with a later version. Leave the block out.";
    Diagnostic::error(format!("the block {name} is not supported yet"), detail).with_code(FaultCode::NotSupportedYet)
}

/// What is said of a setting that is refused; `what` is its path, with or without the value.
pub(crate) fn setting_diagnostic(what: &str) -> Diagnostic {
    let detail = "Its work comes with a later version. Leave the setting out.";
    Diagnostic::error(format!("{what} is not supported yet"), detail).with_code(FaultCode::NotSupportedYet)
}
