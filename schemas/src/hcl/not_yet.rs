//! Settings that are known and checked, and whose work comes with a later version: refused with their place, never ignored.
//!
//! To switch one on, delete its line.

use super::diagnostic::Diagnostic;
use crate::fault::FaultCode;

/// The attributes, by their path in a migration, and the value, as text, that is refused.
pub(crate) const NOT_YET: &[(&str, &str)] = &[("copy.indexes", "before_copy")];

/// Whether the attribute at this path is refused with this value.
pub(crate) fn refuses_value(path: &str, value: &str) -> bool {
    NOT_YET.contains(&(path, value))
}

/// What is said of a setting that is refused; `what` is its path, with or without the value.
pub(crate) fn setting_diagnostic(what: &str) -> Diagnostic {
    let detail = "Its work comes with a later version. Leave the setting out.";
    Diagnostic::error(format!("{what} is not supported yet"), detail).with_code(FaultCode::NotSupportedYet)
}
