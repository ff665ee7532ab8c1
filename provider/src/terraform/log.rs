//! Lines for Terraform's log: JSON on standard error, in the form that its `TF_LOG` understands.

use std::io::Write as _;

use serde_json::{Value, json};

use crate::clock;

/// How much a line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    /// What is going on.
    Info,
    /// Worth a look.
    Warn,
}

impl Level {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warn => "warn",
        }
    }
}

/// Writes a line with what it is about.
pub(crate) fn line(level: Level, message: &str, fields: &[(&str, &str)]) {
    let text = format!("{}\n", formatted(level, message, fields));
    // Nobody reads any more once Terraform is gone; `eprintln!` would panic then.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

fn formatted(level: Level, message: &str, fields: &[(&str, &str)]) -> Value {
    let mut line = json!({
        "@level": level.as_str(),
        "@message": message,
        "@module": "cutover",
        "@timestamp": clock::now().to_string(),
    });
    for (name, value) in fields {
        line[*name] = Value::from(*value);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::{Level, formatted};

    #[test]
    fn a_line_is_one_json_object() {
        let line = formatted(Level::Info, "a\nb", &[("migration", "orders")]).to_string();
        assert!(
            !line.contains('\n')
                && line.contains(r#""@level":"info""#)
                && line.contains(r#""migration":"orders""#),
            "{line}"
        );
    }
}
