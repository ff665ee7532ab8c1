//! A text that parses, as the tokens that keep their form: strings, heredocs and comments are one
//! each.

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A name or keyword.
    Word,
    Number,
    /// A quoted text or a heredoc, whole.
    Text,
    Comment,
    /// Brackets, operators and separators.
    Sign,
    LineEnd,
}

/// A piece of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token<'t> {
    pub(super) kind: Kind,
    pub(super) text: &'t str,
}

impl Token<'_> {
    /// How many brackets it opens, less those that it closes.
    pub(super) fn depth_change(&self) -> i32 {
        match (self.kind, self.text) {
            (Kind::Sign, "{" | "[" | "(") => 1,
            (Kind::Sign, "}" | "]" | ")") => -1,
            _ => 0,
        }
    }
}

/// Signs of several characters, the longer first.
const LONG_SIGNS: [&str; 9] = ["...", "::", "==", "!=", "<=", ">=", "&&", "||", "=>"];

/// Splits a text; white space between tokens is left out.
pub(super) fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let (kind, length) = match c {
            '\n' => (Kind::LineEnd, 1),
            '\r' if rest[1..].starts_with('\n') => (Kind::LineEnd, 2),
            '"' => (Kind::Text, quoted(rest)),
            '#' => (Kind::Comment, line(rest)),
            '/' if rest.starts_with("//") => (Kind::Comment, line(rest)),
            '/' if rest.starts_with("/*") => {
                (Kind::Comment, rest[2..].find("*/").map_or(rest.len(), |end| end + 4))
            }
            '<' if rest.starts_with("<<") => (Kind::Text, heredoc(rest)),
            c if c.is_ascii_digit() => (Kind::Number, number(rest)),
            c if is_word(c) && c != '-' => {
                (Kind::Word, rest.find(|c| !is_word(c)).unwrap_or(rest.len()))
            }
            c if c.is_whitespace() => {
                rest = &rest[c.len_utf8()..];
                continue;
            }
            c => {
                let long = LONG_SIGNS.into_iter().find(|sign| rest.starts_with(sign));
                (Kind::Sign, long.map_or(c.len_utf8(), str::len))
            }
        };
        let (token, after) = rest.split_at(length);
        tokens.push(Token { kind, text: token });
        rest = after;
    }
    tokens
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '-' && c.is_ascii()
}

/// The length of the rest of a line, less its end and the white space before it.
fn line(text: &str) -> usize {
    let end = text.find('\n').unwrap_or(text.len());
    text[..end].trim_end().len()
}

fn number(text: &str) -> usize {
    let bytes = text.as_bytes();
    let digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    let mut at = 0;
    let digits = |at: &mut usize| {
        while digit(*at) {
            *at += 1;
        }
    };
    digits(&mut at);
    if bytes.get(at) == Some(&b'.') && digit(at + 1) {
        at += 1;
        digits(&mut at);
    }
    if matches!(bytes.get(at), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
        if digit(at + 1 + sign) {
            at += 1 + sign;
            digits(&mut at);
        }
    }
    at
}

/// The length of a quoted text, with the strings in its interpolations.
fn quoted(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut at = 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            b'$' | b'%'
                if bytes.get(at + 1) == Some(&bytes[at]) && bytes.get(at + 2) == Some(&b'{') =>
            {
                at += 3
            }
            b'$' | b'%' if bytes.get(at + 1) == Some(&b'{') => at += 2 + braced(&text[at + 2..]),
            _ => at += 1,
        }
    }
    text.len()
}

/// The length of an interpolation up to and with the brace that closes it.
fn braced(text: &str) -> usize {
    let mut depth = 1;
    let mut length = 0;
    // Its tokens are those of any expression, so that a brace in a string within it does not count.
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let step = match c {
            '"' => quoted(rest),
            '{' => {
                depth += 1;
                1
            }
            '}' => {
                depth -= 1;
                1
            }
            c => c.len_utf8(),
        };
        length += step;
        rest = &rest[step..];
        if depth == 0 {
            break;
        }
    }
    length
}

/// The length of a heredoc up to and with its closing word; of `<<` alone, where it is none.
fn heredoc(text: &str) -> usize {
    let opening = text[2..].strip_prefix('-').unwrap_or(&text[2..]);
    let word: String = opening.chars().take_while(|c| is_word(*c)).collect();
    let mut at = match text.find('\n') {
        Some(end) if !word.is_empty() => end + 1,
        _ => return 2,
    };
    while at < text.len() {
        let end = text[at..].find('\n').map_or(text.len(), |end| at + end);
        let line = &text[at..end];
        if line.trim() == word {
            return at + line.trim_end().len();
        }
        at = end + 1;
    }
    text.len()
}
