//! What is wrong with a declaration, where, and how that prints: in Terraform's manner, with the
//! source line and a caret.

use std::fmt::{self, Write as _};

use anstyle::{AnsiColor, Style};
use serde::{Deserialize, Serialize};

use crate::fault::{Fault, FaultCode};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Nothing is carried out.
    Error,
    /// It is carried out, but somebody should look.
    Warning,
}

/// A place in a file, with its source line for printing; or the path of a value that is in no file
/// of ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The file, as the user named it.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// The source line.
    pub excerpt: Excerpt,
}

impl Place {
    /// The place of a value that is in no file of ours, by its path, such as
    /// `namespaces.include[1]`.
    #[must_use]
    pub fn of_value(path: impl Into<String>) -> Self {
        // Lines count from 1: no file has a line 0.
        Self {
            file: path.into(),
            line: 0,
            column: 0,
            excerpt: Excerpt { text: String::new(), start: 0, end: 0 },
        }
    }

    /// The path, where it is that of a value.
    #[must_use]
    pub fn value_path(&self) -> Option<&str> {
        (self.line == 0).then_some(&self.file)
    }
}

/// A source line as it is printed: secrets and control characters replaced, far ends cut off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Excerpt {
    /// The line.
    pub text: String,
    /// Where the marked part starts in `text`, in characters from 0.
    pub start: usize,
    /// Where it ends.
    pub end: usize,
}

/// Another place that belongs to a diagnostic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Related {
    /// What is there.
    pub message: String,
    /// Where.
    pub place: Place,
}

/// One mistake, or one thing to look at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// Its code.
    pub code: FaultCode,
    /// What is wrong, in one line.
    pub summary: String,
    /// Why, and what to write instead.
    pub detail: String,
    /// Where; `None` where it is not in a file.
    pub place: Option<Place>,
    /// The blocks around the place, such as `migration "orders", block cutover`.
    pub context: Option<String>,
    /// Other places that belong to it.
    pub related: Vec<Related>,
}

impl Diagnostic {
    /// An error of the class of mistakes in a file.
    #[must_use]
    pub fn error(summary: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            code: FaultCode::InvalidConfiguration,
            summary: summary.into(),
            detail: detail.into(),
            place: None,
            context: None,
            related: Vec::new(),
        }
    }

    /// A warning.
    #[must_use]
    pub fn warning(summary: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(summary, detail) }
    }

    /// A fault as an error at a place: for what turns out only against the daemon, such as a token
    /// of another run.
    #[must_use]
    pub fn from_fault(fault: &Fault, place: Option<Place>) -> Self {
        Self { code: fault.code, place, ..Self::error(fault.message.clone(), fault.remedy.clone()) }
    }

    /// The same with another code.
    #[must_use]
    pub fn with_code(mut self, code: FaultCode) -> Self {
        self.code = code;
        self
    }

    /// The same at a place.
    #[must_use]
    pub fn at(mut self, place: Place) -> Self {
        self.place = Some(place);
        self
    }

    /// The same with the blocks around it; empty for none.
    #[must_use]
    pub fn within(mut self, context: &str) -> Self {
        self.context = (!context.is_empty()).then(|| context.to_owned());
        self
    }

    /// The same with one more place.
    #[must_use]
    pub fn related_to(mut self, message: impl Into<String>, place: Place) -> Self {
        self.related.push(Related { message: message.into(), place });
        self
    }

    /// The diagnostic as text of several lines, ending in a line end. `color`: with ANSI escapes.
    #[must_use]
    pub fn render(&self, color: bool) -> String {
        let style = |style: Style| if color { style } else { Style::new() };
        let bold = style(Style::new().bold());
        let (word, tone) = match self.severity {
            Severity::Error => ("Error", AnsiColor::Red),
            Severity::Warning => ("Warning", AnsiColor::Yellow),
        };
        let tone = style(tone.on_default().bold());
        let mut out = String::new();
        // Writing to a String cannot fail, here and below.
        let _ =
            writeln!(out, "{tone}{word}: {tone:#}{bold}{}{bold:#} [{}]\n", self.summary, self.code);
        if let Some(path) = self.place.as_ref().and_then(Place::value_path) {
            let _ = writeln!(out, "  at {path}:");
        } else if let Some(place) = &self.place {
            let context =
                self.context.as_ref().map(|context| format!(", in {context}")).unwrap_or_default();
            let _ = writeln!(
                out,
                "  on {} line {}, column {}{context}:",
                place.file, place.line, place.column
            );
            place.excerpt.render(place.line, tone, &mut out);
        }
        for line in self.detail.lines() {
            let _ = writeln!(out, "  {line}");
        }
        for related in &self.related {
            let Related { message, place } = related;
            let _ = writeln!(
                out,
                "\n  {message}: {} line {}, column {}:",
                place.file, place.line, place.column
            );
            place.excerpt.render(place.line, style(Style::new()), &mut out);
        }
        out
    }

    /// Whether another says the same of the same place, whatever blocks are around it.
    fn says_the_same(&self, other: &Self) -> bool {
        self.place == other.place
            && self.summary == other.summary
            && self.detail == other.detail
            && self.severity == other.severity
            && self.code == other.code
            && self.related == other.related
    }

    /// Where it sorts: by file, line and column; what has no place comes first.
    fn order(&self) -> (Option<(&str, usize, usize)>, Severity) {
        (
            self.place.as_ref().map(|place| (place.file.as_str(), place.line, place.column)),
            self.severity,
        )
    }
}

impl Excerpt {
    fn render(&self, line: usize, tone: Style, out: &mut String) {
        let number = line.to_string();
        let _ = writeln!(out, "  {number}: {}", self.text);
        let indent = 2 + number.len() + 2 + self.start;
        let width = self.end.saturating_sub(self.start).max(1);
        let _ = writeln!(out, "{:indent$}{tone}{}{tone:#}", "", "^".repeat(width));
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl From<&Diagnostic> for Fault {
    fn from(diagnostic: &Diagnostic) -> Fault {
        let place = diagnostic
            .place
            .as_ref()
            .map(|place| format!("{}:{}: ", place.file, place.line))
            .unwrap_or_default();
        Fault::new(diagnostic.code, format!("{place}{}", diagnostic.summary))
            .with_remedy(diagnostic.detail.clone())
    }
}

/// Diagnostics in the order of their places. At most [`Diagnostics::MOST`] are kept; a last one
/// counts the rest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Diagnostics(Vec<Diagnostic>);

impl Diagnostics {
    /// More than these help nobody, and a hostile file could make millions.
    pub const MOST: usize = 50;

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether one is an error.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.0.iter().any(|diagnostic| diagnostic.severity == Severity::Error)
    }

    /// Goes over them in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.0.iter()
    }

    /// All of them, rendered, with an empty line between.
    #[must_use]
    pub fn render(&self, color: bool) -> String {
        self.0.iter().map(|diagnostic| diagnostic.render(color)).collect::<Vec<_>>().join("\n")
    }
}

impl<'a> IntoIterator for &'a Diagnostics {
    type Item = &'a Diagnostic;
    type IntoIter = std::slice::Iter<'a, Diagnostic>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl IntoIterator for Diagnostics {
    type Item = Diagnostic;
    type IntoIter = std::vec::IntoIter<Diagnostic>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl From<Diagnostic> for Diagnostics {
    fn from(diagnostic: Diagnostic) -> Self {
        Self(vec![diagnostic])
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Diagnostics {}

/// Collects diagnostics while a directory is read.
#[derive(Debug, Default)]
pub(crate) struct Report {
    kept: Vec<Diagnostic>,
    errors: usize,
    left_out: usize,
}

impl Report {
    /// Adds one.
    pub(crate) fn add(&mut self, diagnostic: Diagnostic) {
        if diagnostic.severity == Severity::Error {
            self.errors += 1;
        }
        // A block that stands for several migrations has the same mistake in each of them.
        if diagnostic.place.is_some()
            && self.kept.iter().any(|kept| kept.says_the_same(&diagnostic))
        {
            return;
        }
        if self.kept.len() < Diagnostics::MOST {
            self.kept.push(diagnostic);
        } else {
            self.left_out += 1;
        }
    }

    /// How many errors there were so far.
    pub(crate) fn errors(&self) -> usize {
        self.errors
    }

    /// All of them, in order.
    pub(crate) fn finish(mut self) -> Diagnostics {
        self.kept.sort_by(|a, b| a.order().cmp(&b.order()));
        self.kept.dedup();
        if self.left_out > 0 {
            let summary = format!("{} more mistakes are not shown", self.left_out);
            self.kept.push(Diagnostic::error(
                summary,
                "Correct the ones above and run the command again.",
            ));
        }
        Diagnostics(self.kept)
    }
}
