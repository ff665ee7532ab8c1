//! Text to syntax tree: one error for each file, since the parser stops at the first.

use std::ops::Range;

use hcl_edit::Span as _;
use hcl_edit::parser::parse_body;
use hcl_edit::structure::Body;

use super::diagnostic::Diagnostic;
use super::source::SourceFile;
use super::unclosed::{self, Open};

/// A file and its tree.
pub(crate) struct Parsed {
    pub(crate) file: SourceFile,
    pub(crate) body: Body,
}

/// Parses a file.
pub(crate) fn parse(mut file: SourceFile) -> Result<Parsed, Box<Diagnostic>> {
    match parse_body(&file.text) {
        Ok(body) => {
            file.hide(hidden_defaults(&body));
            Ok(Parsed { file, body })
        }
        Err(error) => {
            if let Some(Open { span, summary, detail }) = unclosed::find_open(&file.text) {
                return Err(Box::new(Diagnostic::error(summary, detail).at(file.place(span))));
            }
            let span = token_at(&file.text, error.location().offset());
            let (summary, detail) = words(error.message(), &file.text[span.clone()]);
            Err(Box::new(Diagnostic::error(summary, detail).at(file.place(span))))
        }
    }
}

/// The word or character at an offset.
fn token_at(text: &str, offset: usize) -> Range<usize> {
    let mut start = offset.min(text.len());
    while !text.is_char_boundary(start) {
        start -= 1;
    }
    let rest = &text[start..];
    let word =
        rest.find(|c: char| !c.is_alphanumeric() && c != '_' && c != '-').unwrap_or(rest.len());
    let width = if word > 0 {
        word
    } else {
        rest.chars().next().filter(|c| *c != '\n').map_or(0, char::len_utf8)
    };
    start..start + width
}

/// The parser's words, made to read like ours.
fn words(message: &str, token: &str) -> (String, String) {
    if message.contains("redefined attribute") {
        return (
            format!("the attribute {} stands twice", super::source::quoted(token)),
            "It has a value already, further up in the same block. Remove one of them.".to_owned(),
        );
    }
    if message.contains("nesting depth") {
        return (
            "nested too deeply".to_owned(),
            "Blocks and expressions nest at most 64 levels.".to_owned(),
        );
    }
    if message.contains("chained binary operators") {
        return (
            "too many operators in one expression".to_owned(),
            "At most 128 are chained. Use locals for the parts.".to_owned(),
        );
    }
    if token == "'" {
        return (
            "the file does not parse: a single quote".to_owned(),
            "Texts are written in double quotes.".to_owned(),
        );
    }
    if token == ":" {
        return (
            "the file does not parse: a colon".to_owned(),
            "An attribute is written NAME = VALUE.".to_owned(),
        );
    }
    if message.starts_with("invalid expression") {
        return (
            "the file does not parse: a value is missing".to_owned(),
            "A value is a text in double quotes, a number, true, false, null, a list, an object, \
             or an expression of these."
                .to_owned(),
        );
    }
    let (what, expected) = match message.split_once("; ") {
        Some((what, expected)) => (what, expected),
        None => ("", message),
    };
    let summary = match what.strip_prefix("invalid ") {
        Some(what) => format!("the file does not parse: this is not a valid {what}"),
        None => "the file does not parse".to_owned(),
    };
    let detail = match expected.strip_prefix("expected ") {
        Some(expected) => format!(
            "Expected here: {}.",
            expected.replace("eof", "the end of the file").replace('`', "")
        ),
        None => "Nothing that can stand here begins like this.".to_owned(),
    };
    (summary, detail)
}

/// The spans of the defaults of sensitive variables, which are never printed.
fn hidden_defaults(body: &Body) -> Vec<std::ops::Range<usize>> {
    body.get_blocks("variable")
        .filter(|block| {
            block
                .body
                .get_attribute("sensitive")
                .is_some_and(|attribute| attribute.value.as_bool() != Some(false))
        })
        .filter_map(|block| block.body.get_attribute("default")?.value.span())
        .collect()
}
