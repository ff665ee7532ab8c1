//! The files of a declaration: their texts, bounded, and the places in them.

use std::io::Read as _;
use std::ops::Range;
use std::path::Path;

use super::diagnostic::{Diagnostic, Excerpt, Place};
use super::redact;

/// A declaration is written by people: a larger file is a mistake, and would take the parser long.
pub(crate) const MOST_BYTES: u64 = 4 << 20;

/// What replaces a secret in a printed line.
const MASK: &str = "********";

/// A printed line is cut to about this many characters around its mark.
const WIDEST: usize = 160;

/// One file's text.
#[derive(Debug)]
pub(crate) struct SourceFile {
    /// The file as diagnostics name it.
    pub(crate) name: String,
    /// Its text, without a byte order mark.
    pub(crate) text: String,
    line_starts: Vec<usize>,
    hidden: Vec<Range<usize>>,
}

impl SourceFile {
    /// Takes a text that is there already.
    pub(crate) fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        let mut text = text.into();
        if text.starts_with('\u{feff}') {
            text.remove(0);
        }
        let line_starts =
            std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        let hidden = redact::secrets_in(&text);
        Self { name: name.into(), text, line_starts, hidden }
    }

    /// Reads a file: a regular one, of UTF-8, within the bound.
    pub(crate) fn read(name: impl Into<String>, path: &Path) -> Result<Self, Box<Diagnostic>> {
        let name = name.into();
        let text = read_text(path).map_err(|Unreadable(what, detail)| {
            Box::new(Diagnostic::error(format!("{name} {what}"), detail))
        })?;
        Ok(Self::new(name, text))
    }

    /// Hides more of the text wherever its lines are printed.
    pub(crate) fn hide(&mut self, ranges: impl IntoIterator<Item = Range<usize>>) {
        let mut hidden = std::mem::take(&mut self.hidden);
        hidden.extend(ranges);
        self.hidden = redact::merged(hidden);
    }

    /// The place of a span of bytes.
    pub(crate) fn place(&self, span: Range<usize>) -> Place {
        let start = self.boundary(span.start);
        let line = self.line_starts.partition_point(|&line| line <= start);
        let line_start = self.line_starts[line - 1];
        let line_end = self.line_starts.get(line).map_or(self.text.len(), |&next| next - 1);
        let line_end = line_start + self.text[line_start..line_end].trim_end_matches('\r').len();
        let start = start.min(line_end);
        let end = self.boundary(span.end).clamp(start, line_end);
        let column = self.text[line_start..start].chars().count() + 1;
        Place {
            file: self.name.clone(),
            line,
            column,
            excerpt: self.excerpt(line_start..line_end, start..end),
        }
    }

    fn boundary(&self, at: usize) -> usize {
        let mut at = at.min(self.text.len());
        while !self.text.is_char_boundary(at) {
            at -= 1;
        }
        at
    }

    fn excerpt(&self, line: Range<usize>, mark: Range<usize>) -> Excerpt {
        // Far ends are cut first, so that a file of one long line costs no more than a short one.
        let near = |at: usize, by: usize| self.boundary(at.saturating_sub(by)).max(line.start);
        let from = if mark.start - line.start > WIDEST {
            near(mark.start, WIDEST / 2)
        } else {
            line.start
        };
        let to = self.boundary((from + WIDEST).max(mark.start + 1)).min(line.end).max(mark.start);
        let mut text = String::new();
        let (mut start, mut end) = (None, None);
        let mut width = 0;
        let mut push = |part: &str, text: &mut String| {
            text.push_str(part);
            width += part.chars().count();
            width
        };
        let mut at = 0;
        if from > line.start {
            at = push("…", &mut text);
        }
        let mut inside_hidden = false;
        for (offset, c) in self.text[from..to].char_indices() {
            let position = from + offset;
            if position >= mark.start && start.is_none() {
                start = Some(if inside_hidden && self.is_hidden(position) {
                    at - MASK.len()
                } else {
                    at
                });
            }
            if position >= mark.end && end.is_none() {
                end = Some(at);
            }
            if self.is_hidden(position) {
                if !inside_hidden {
                    at = push(MASK, &mut text);
                }
                inside_hidden = true;
                continue;
            }
            inside_hidden = false;
            at = match c {
                '\t' => push("    ", &mut text),
                c if is_unprintable(c) => push("\u{fffd}", &mut text),
                c => push(c.encode_utf8(&mut [0; 4]), &mut text),
            };
        }
        let (start, end) = (start.unwrap_or(at), end.unwrap_or(at));
        if to < line.end {
            push("…", &mut text);
        }
        let text = if end == at { text.trim_end().to_owned() } else { text };
        Excerpt { text, start, end: end.max(start) }
    }

    fn is_hidden(&self, position: usize) -> bool {
        let after = self.hidden.partition_point(|range| range.end <= position);
        self.hidden.get(after).is_some_and(|range| range.contains(&position))
    }
}

/// Control characters, and those that reorder a line on a terminal.
fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A text as messages quote it: escaped, and cut where it is long.
pub(crate) fn quoted(text: &str) -> String {
    const MOST: usize = 80;
    let mut short: String = text.chars().take(MOST).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    let escaped: String = short
        .chars()
        .map(|c| if is_unprintable(c) && !c.is_control() { '\u{fffd}' } else { c })
        .collect();
    format!("{escaped:?}")
}

/// Why a file cannot be read: what to say after its name, and the detail.
pub(crate) struct Unreadable(pub(crate) String, pub(crate) String);

/// Reads a regular file of UTF-8 text within the bound.
pub(crate) fn read_text(path: &Path) -> Result<String, Unreadable> {
    let io = |error: std::io::Error| {
        Unreadable("cannot be read".to_owned(), format!("The system says: {error}."))
    };
    // A pipe or a device would block, or never end.
    if !std::fs::metadata(path).map_err(io)?.is_file() {
        return Err(Unreadable(
            "is not a regular file".to_owned(),
            "Only regular files and links to them are read.".to_owned(),
        ));
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .map_err(io)?
        .take(MOST_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(io)?;
    if bytes.len() as u64 > MOST_BYTES {
        let detail = format!("Files of at most {} MiB are read.", MOST_BYTES >> 20);
        return Err(Unreadable("is too large".to_owned(), detail));
    }
    String::from_utf8(bytes).map_err(|error| {
        let line = error.as_bytes()[..error.utf8_error().valid_up_to()]
            .iter()
            .filter(|&&b| b == b'\n')
            .count()
            + 1;
        Unreadable(
            "is not UTF-8".to_owned(),
            format!(
                "Line {line} has bytes that are no UTF-8 text. Save the file with the \
                 encoding UTF-8."
            ),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::SourceFile;

    fn marked(text: &str, needle: &str) -> (String, String) {
        let file = SourceFile::new("x.hcl", text);
        let at = file.text.find(needle).expect("the needle");
        let excerpt = file.place(at..at + needle.len()).excerpt;
        let mark =
            excerpt.text.chars().skip(excerpt.start).take(excerpt.end - excerpt.start).collect();
        (excerpt.text, mark)
    }

    #[test]
    fn places_count_lines_and_characters() {
        let file = SourceFile::new("x.hcl", "a = 1\r\nä = \"ö\" # x\r\n");
        let at = file.text.find("\"ö\"").expect("it");
        let place = file.place(at..at + 4);
        assert_eq!((place.line, place.column), (2, 5));
        assert_eq!(place.excerpt.text, "ä = \"ö\" # x");
        assert_eq!((place.excerpt.start, place.excerpt.end), (4, 7));
        let end = file.place(1000..2000);
        assert_eq!((end.line, end.column), (3, 1));
    }

    #[test]
    fn secrets_are_masked_and_marks_follow() {
        assert_eq!(
            marked("\tpassword = \"hunter2\"", "\"hunter2\""),
            ("    password = \"********\"".into(), "\"********\"".into())
        );
        assert_eq!(
            marked("uri = \"mongodb://u:pw@h\" x", "x"),
            ("uri = \"mongodb://u:********@h\" x".into(), "x".into())
        );
        assert_eq!(
            marked("password = \"hunter2\"", "ter"),
            ("password = \"********\"".into(), "********".into())
        );
    }

    #[test]
    fn long_lines_are_cut_around_the_mark() {
        let text = format!("{}here{}", "ab ".repeat(100_000), " cd".repeat(100_000));
        let (line, mark) = marked(&text, "here");
        assert_eq!(mark, "here");
        assert!(line.chars().count() < 200, "{line}");
    }

    #[test]
    fn terminal_escapes_do_not_get_through() {
        let (line, mark) = marked("x = \"\u{1b}[31m\" here", "here");
        assert_eq!(mark, "here");
        assert!(!line.contains('\u{1b}'));
    }
}
