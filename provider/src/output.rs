//! The standard streams: results to stdout, diagnostics to stderr. A reader that has gone is no
//! panic.

use std::io::{self, IsTerminal as _, Write as _};

use serde::Serialize;

use crate::exit_code::Failure;
use crate::render::paint::Paint;

/// Where a command's results and messages go.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    /// How results are coloured.
    pub results: Paint,
    /// How messages are coloured.
    pub messages: Paint,
    /// Whether results go to a terminal.
    pub to_terminal: bool,
    /// Whether messages go to a terminal.
    pub messages_to_terminal: bool,
}

impl Output {
    /// The process's own streams: coloured only on a terminal, and never with `NO_COLOR` or on a
    /// dumb terminal.
    #[must_use]
    pub fn standard() -> Self {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let plain = set("NO_COLOR") || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let (out, err) = (io::stdout().is_terminal(), io::stderr().is_terminal());
        Self {
            results: Paint::new(out && !plain),
            messages: Paint::new(err && !plain),
            to_terminal: out,
            messages_to_terminal: err,
        }
    }

    /// Writes a result, as it is.
    pub fn result(&self, text: &str) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()?;
        Ok(())
    }

    /// Writes a result as one indented JSON document and a line end.
    pub fn json<T: Serialize>(&self, document: &T) -> Result<(), Failure> {
        self.result(&pretty(document))
    }

    /// Writes a result as one line of JSON.
    pub fn json_line<T: Serialize>(&self, document: &T) -> Result<(), Failure> {
        self.result(&format!("{}\n", schemas::wire::to_json(document)))
    }

    /// Writes a message. One that cannot be written is lost: there is nowhere else to say so.
    pub fn message(&self, text: &str) {
        let _ = io::stderr().lock().write_all(text.as_bytes());
    }
}

/// A document as indented JSON with a line end.
#[must_use]
pub fn pretty<T: Serialize>(document: &T) -> String {
    let mut text = serde_json::to_string_pretty(document)
        .expect("the documents of this crate have string keys only");
    text.push('\n');
    text
}
