//! What is opened and never closed, in a text that does not parse: the parser points to where it
//! gave up, which is far away.

use std::ops::Range;

/// What is open, and what to say about it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Open {
    pub(crate) span: Range<usize>,
    pub(crate) summary: String,
    pub(crate) detail: String,
}

fn open(span: Range<usize>, summary: impl Into<String>, detail: impl Into<String>) -> Option<Open> {
    Some(Open { span, summary: summary.into(), detail: detail.into() })
}

/// What the reader is in.
enum Within {
    /// Brackets, with the offset and kind of the opening one. An interpolation is one too.
    Bracket(usize, u8),
    /// A quoted text.
    Quotes(usize),
}

/// Finds the first thing that is not closed, or is closed by something else.
pub(crate) fn find_open(text: &str) -> Option<Open> {
    let bytes = text.as_bytes();
    let mut within: Vec<Within> = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        if let Some(&Within::Quotes(start)) = within.last() {
            match (bytes[at], bytes.get(at + 1)) {
                (b'\\', Some(_)) => at += 1,
                (b'"', _) => drop(within.pop()),
                (b'$' | b'%', Some(b'$' | b'%')) if bytes.get(at + 2) == Some(&b'{') => at += 2,
                (b'$' | b'%', Some(b'{')) => {
                    within.push(Within::Bracket(at, b'{'));
                    at += 1;
                }
                (b'\n', _) => return unclosed_quotes(text, start),
                _ => {}
            }
            at += 1;
            continue;
        }
        match bytes[at] {
            b'#' => at = line_end(text, at),
            b'/' if bytes.get(at + 1) == Some(&b'/') => at = line_end(text, at),
            b'/' if bytes.get(at + 1) == Some(&b'*') => match text[at + 2..].find("*/") {
                Some(end) => at += end + 3,
                None => {
                    return open(at..at + 2, "a comment is not closed", "After /* there is no */.");
                }
            },
            b'<' if bytes.get(at + 1) == Some(&b'<') => match heredoc_end(text, at) {
                Heredoc::No => {}
                Heredoc::Ends(end) => at = end,
                Heredoc::Open(delimiter) => {
                    let detail = format!("There is no line with only {delimiter} after it.");
                    return open(at..line_end(text, at), "a heredoc is not closed", detail);
                }
            },
            b'"' => within.push(Within::Quotes(at)),
            bracket @ (b'{' | b'[' | b'(') => within.push(Within::Bracket(at, bracket)),
            closing @ (b'}' | b']' | b')') => match within.pop() {
                Some(Within::Bracket(_, opening)) if closes(opening) == closing => {}
                Some(Within::Bracket(start, opening)) => {
                    let summary =
                        format!("a {} is closed by {}", char::from(opening), char::from(closing));
                    let line = text[..start].matches('\n').count() + 1;
                    let detail = format!(
                        "The {} is in line {line}; it is closed by {}.",
                        char::from(opening),
                        char::from(closes(opening))
                    );
                    return open(at..at + 1, summary, detail);
                }
                Some(Within::Quotes(_)) => unreachable!("quotes are treated above"),
                None => {
                    let summary = format!("a {} that closes nothing", char::from(closing));
                    return open(at..at + 1, summary, "Remove it, or open what it should close.");
                }
            },
            _ => {}
        }
        at += 1;
    }
    match within.pop()? {
        Within::Quotes(start) => unclosed_quotes(text, start),
        Within::Bracket(start, opening) => {
            let summary = format!("a {} is not closed", char::from(opening));
            open(
                start..start + 1,
                summary,
                format!(
                    "There is no {} for it before the end of the file.",
                    char::from(closes(opening))
                ),
            )
        }
    }
}

fn unclosed_quotes(text: &str, start: usize) -> Option<Open> {
    let end = line_end(text, start);
    open(
        start..end,
        "a text is not closed",
        "There is no \" at its end. Texts of several lines are written as heredocs: <<EOT.",
    )
}

fn line_end(text: &str, at: usize) -> usize {
    text[at..].find('\n').map_or(text.len(), |end| at + end)
}

const fn closes(opening: u8) -> u8 {
    match opening {
        b'{' => b'}',
        b'[' => b']',
        _ => b')',
    }
}

enum Heredoc<'a> {
    No,
    Ends(usize),
    Open(&'a str),
}

fn heredoc_end(text: &str, at: usize) -> Heredoc<'_> {
    let start = line_end(text, at);
    let marker = text[at + 2..start].trim_end_matches('\r');
    let delimiter = marker.strip_prefix('-').unwrap_or(marker);
    let is_name = delimiter.chars().next().is_some_and(|c| c.is_alphabetic() || c == '_')
        && delimiter.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-');
    if !is_name {
        return Heredoc::No;
    }
    let mut offset = start;
    for line in text[start..].split_inclusive('\n') {
        offset += line.len();
        // What follows on the last line, such as a bracket, is still to be read.
        if let Some(rest) = line.trim_start().strip_prefix(delimiter)
            && !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_' || c == '-')
        {
            return Heredoc::Ends(offset - rest.len() - 1);
        }
    }
    Heredoc::Open(delimiter)
}

#[cfg(test)]
mod tests {
    use super::find_open;

    #[test]
    fn whole_texts_have_nothing_open() {
        for text in [
            "a = \"x ${b[\"}\"]} $${ %%{ \\\" \" # {\nb = {} // [\n/* ( */ c = (1)",
            "a = <<EOT\n \" { ( \n  EOT\nb = 1",
            "f(<<-X\n\"\n X\n)",
            "a = 1 << 2",
            "",
        ] {
            assert_eq!(find_open(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_open_is_found_where_it_opens() {
        for (text, at) in [
            ("a {\n b = \"x\n}\n", 9),
            ("a {\n b = [1\n}\n", 12),
            ("a {\n", 2),
            ("a = <<EOT\nx\n", 4),
            ("a = 1 /* x", 6),
            ("}", 0),
            ("a = \"${b\"", 8),
            ("a = \"", 4),
        ] {
            assert_eq!(find_open(text).map(|open| open.span.start), Some(at), "{text}");
        }
    }

    #[test]
    fn any_text_is_taken() {
        for text in ["<<", "<<-", "<<é", "\"\\", "\"$", "\"ä\n", "/*", "<<A\nA"] {
            find_open(text);
        }
    }
}
