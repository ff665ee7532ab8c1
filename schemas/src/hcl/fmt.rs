//! The canonical layout of HCL: indents, spaces, and `=` and comments in columns, as
//! `terraform fmt` sets them.
//!
//! Only white space between tokens on a line changes. Line breaks, comments, strings (with what is
//! interpolated) and heredocs stay as they are, and a text whose laid-out form would parse to
//! something else is left alone.

use hcl_edit::expr::{Array, FuncArgs, Object};
use hcl_edit::parser::parse_body;
use hcl_edit::structure::Body;
use hcl_edit::visit_mut::{VisitMut, visit_array_mut, visit_func_args_mut, visit_object_mut};

use super::diagnostic::{Diagnostic, Diagnostics};
use super::source::SourceFile;
use super::syntax;

mod token;

use self::token::{Kind, Token, tokens};

/// How far a block's content stands in.
const INDENT: usize = 2;

/// Lays a file's text out; where it does not parse, says why.
pub fn layout(name: &str, text: &str) -> Result<String, Diagnostics> {
    // A byte order mark is no part of what the parser and the columns see, nor is another one that
    // an editor has put before it.
    let plain = text.trim_start_matches('\u{feff}');
    let mark = &text[..text.len() - plain.len()];
    let before = syntax::parse(SourceFile::new(name, plain))
        .map_err(|diagnostic| Diagnostics::from(*diagnostic))?
        .body;
    let laid_out = arrange(plain);
    if parse_body(&laid_out).is_ok_and(|after| meaning(after) == meaning(before)) {
        Ok(format!("{mark}{laid_out}"))
    } else {
        let summary = format!("{name} cannot be laid out without changing what it means");
        // The parser takes a quote within the body of a directive for text, where everybody reads
        // the end of the string.
        let detail = "A quote stands where it is easily misread, such as between two %{ ... } of \
             a string. The file is left as it is.";
        Err(Diagnostic::error(summary, detail).into())
    }
}

/// A tree without the white space that the parser takes for a part of it: that before a closing
/// bracket.
fn meaning(mut body: Body) -> Body {
    struct Trailing;
    impl VisitMut for Trailing {
        fn visit_array_mut(&mut self, node: &mut Array) {
            node.set_trailing("");
            visit_array_mut(self, node);
        }
        fn visit_object_mut(&mut self, node: &mut Object) {
            node.set_trailing("");
            visit_object_mut(self, node);
        }
        fn visit_func_args_mut(&mut self, node: &mut FuncArgs) {
            node.set_trailing("");
            visit_func_args_mut(self, node);
        }
    }
    Trailing.visit_body_mut(&mut body);
    body
}

/// A line, in the three cells that are set in columns.
#[derive(Default)]
struct Line<'t> {
    lead: Vec<Token<'t>>,
    /// From the `=` on, where the value ends on the line.
    assign: Vec<Token<'t>>,
    comment: Option<Token<'t>>,
    /// The line break, as it is.
    end: &'t str,
    indent: usize,
    assign_column: usize,
    comment_column: usize,
}

fn arrange(text: &str) -> String {
    let mut lines = lines(text);
    indent(&mut lines);
    in_columns(&mut lines);
    let mut out = String::with_capacity(text.len());
    for line in &lines {
        let start = out.len();
        if !line.lead.is_empty() {
            out.push_str(&" ".repeat(line.indent));
            out.push_str(&spaced(&line.lead));
        }
        let pad = |out: &mut String, column: usize| {
            let width = out[start..].chars().count();
            out.push_str(&" ".repeat(column.saturating_sub(width).max(1)));
        };
        if !line.assign.is_empty() {
            pad(&mut out, line.assign_column);
            out.push_str(&spaced(&line.assign));
        }
        if let Some(comment) = &line.comment {
            pad(&mut out, line.comment_column);
            out.push_str(comment.text);
        }
        out.push_str(line.end);
    }
    out
}

fn lines(text: &str) -> Vec<Line<'_>> {
    let mut lines = Vec::new();
    let mut line = Line::default();
    for token in tokens(text) {
        if token.kind == Kind::LineEnd {
            line.end = token.text;
            lines.push(std::mem::take(&mut line));
        } else {
            line.lead.push(token);
        }
    }
    lines.push(line);
    for line in &mut lines {
        if line.lead.len() > 1 && line.lead.last().is_some_and(|last| last.kind == Kind::Comment) {
            line.comment = line.lead.pop();
        }
        let assign = line.lead.iter().position(|token| token.text == "=").filter(|at| *at > 0);
        if let Some(at) = assign
            && line.lead[at..].iter().map(Token::depth_change).sum::<i32>() == 0
        {
            line.assign = line.lead.split_off(at);
        }
    }
    lines
}

/// A line that opens more than it closes sets what follows in by one step, however many brackets it
/// opens.
fn indent(lines: &mut [Line<'_>]) {
    let mut open: Vec<i32> = Vec::new();
    for line in lines {
        let change: i32 = line.lead.iter().chain(&line.assign).map(Token::depth_change).sum();
        let mut closed = -change;
        while closed > 0
            && let Some(last) = open.last_mut()
        {
            if closed < *last {
                *last -= closed;
                closed = 0;
            } else {
                closed -= *last;
                open.pop();
            }
        }
        line.indent = INDENT * open.len();
        if change > 0 {
            open.push(change);
        }
    }
}

fn in_columns(lines: &mut [Line<'_>]) {
    let width = |tokens: &[Token<'_>]| spaced(tokens).chars().count();
    // Nothing is set in a column after a token of several lines.
    let breaks = |line: &Line<'_>| {
        line.lead.iter().chain(&line.assign).any(|token| token.text.contains('\n'))
    };
    each_chain(
        lines,
        |line| !line.assign.is_empty(),
        |_| false,
        |chain| {
            let widest =
                chain.iter().map(|line| line.indent + width(&line.lead)).max().unwrap_or(0);
            chain.iter_mut().for_each(|line| line.assign_column = widest + 1);
        },
    );
    each_chain(
        lines,
        |line| line.comment.is_some(),
        breaks,
        |chain| {
            let end = |line: &Line<'_>| match line.assign.as_slice() {
                [] => line.indent + width(&line.lead),
                assign => line.assign_column + width(assign),
            };
            let widest = chain.iter().map(end).max().unwrap_or(0);
            chain.iter_mut().for_each(|line| line.comment_column = widest + 1);
        },
    );
}

/// Goes over the runs of neighbouring lines that have a cell; one that `breaks` ends its run.
fn each_chain<'t>(
    lines: &mut [Line<'t>],
    has: fn(&Line<'t>) -> bool,
    breaks: impl Fn(&Line<'t>) -> bool,
    mut set: impl FnMut(&mut [Line<'t>]),
) {
    let mut start = 0;
    for at in 0..=lines.len() {
        let is_in = lines.get(at).is_some_and(has);
        if !is_in {
            set(&mut lines[start..at]);
            start = at + 1;
        } else if breaks(&lines[at]) {
            set(&mut lines[start..=at]);
            start = at + 1;
        }
    }
}

/// Tokens of one cell with the spaces between them.
fn spaced(tokens: &[Token<'_>]) -> String {
    let mut out = String::new();
    for (at, token) in tokens.iter().enumerate() {
        if let Some(before) = at.checked_sub(1).map(|before| &tokens[before])
            && is_space_between(at.checked_sub(2).map(|earlier| &tokens[earlier]), before, token)
        {
            out.push(' ');
        }
        out.push_str(token.text);
    }
    out
}

/// Whether a space stands after `token` before `after`; `before` is what stands before it.
fn is_space_between(before: Option<&Token<'_>>, token: &Token<'_>, after: &Token<'_>) -> bool {
    match (token.text, after.text) {
        (_, "(") if token.kind == Kind::Word && token.text != "in" => false,
        // Without it the two numbers would be one.
        (".", _)
            if after.kind == Kind::Number
                && before.is_some_and(|before| before.kind == Kind::Number) =>
        {
            true
        }
        ("." | "::", _) | (_, "." | "::" | "," | "...") => false,
        (",", _) => true,
        ("in", _) if before.is_some_and(|before| before.kind == Kind::Word) => true,
        (_, "[")
            if token.kind == Kind::Word
                || token.kind == Kind::Number
                || token.depth_change() < 0 =>
        {
            false
        }
        ("!", _) => false,
        ("-", _) => before.is_some_and(ends_a_value),
        ("{", "}") => false,
        ("{", _) | (_, "}") => true,
        _ => token.depth_change() <= 0 && after.depth_change() >= 0,
    }
}

/// Whether a value can end with a token, so that a minus after it subtracts.
fn ends_a_value(token: &Token<'_>) -> bool {
    match token.kind {
        Kind::Word | Kind::Number | Kind::Text | Kind::Comment | Kind::LineEnd => true,
        Kind::Sign => matches!(token.text, ")" | "]" | "}"),
    }
}

#[cfg(test)]
mod tests;
