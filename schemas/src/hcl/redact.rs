//! Finds what may be a secret in a text, so that no source line is ever printed with one.
//!
//! It works on plain text, since the file may not parse: that is when its lines are printed. It
//! errs on the side of hiding.

use std::ops::Range;

/// Words whose value is hidden wherever they are assigned one.
const WORDS: [&str; 8] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "session_token",
    "private_key",
    "api_key",
    "access_key",
];

/// The byte ranges of `text` that may be secrets, in order and without overlaps.
pub(crate) fn secrets_in(text: &str) -> Vec<Range<usize>> {
    let mut found = in_uris(text);
    found.extend(after_words(text));
    merged(found)
}

/// Sorts ranges and joins those that touch.
pub(crate) fn merged(mut ranges: Vec<Range<usize>>) -> Vec<Range<usize>> {
    ranges.retain(|range| !range.is_empty());
    ranges.sort_by_key(|range| (range.start, range.end));
    let mut merged: Vec<Range<usize>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

/// What stands between the first colon and the last `@` of `scheme://…`, either of them
/// percent-encoded or not.
fn in_uris(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    // What was looked through once is not looked through again: hostile texts have a scheme in
    // every line's every word.
    let mut seen = 0;
    for (at, _) in text.match_indices("://") {
        let start = at + 3;
        if start < seen {
            continue;
        }
        let line_end = text[start..].find('\n').map_or(text.len(), |end| start + end);
        let quote = text[start..line_end].find('"').map_or(line_end, |end| start + end);
        // A quote inside the secret ends the string too early.
        let closed =
            ends_a_string(&text[quote..line_end]) || last_at_sign(&text[start..quote]).is_some();
        let end = if closed { quote } else { line_end };
        seen = end;
        let Some(at_sign) = last_at_sign(&text[start..end]) else { continue };
        let userinfo = &text[start..start + at_sign];
        if let Some(colon) = first_of(userinfo, &[":", "%3A", "%3a"]) {
            found.push(start + colon..start + at_sign);
        }
    }
    found
}

/// Whether a quote is followed by what follows the end of a string, rather than by more of a
/// secret.
fn ends_a_string(from_quote: &str) -> bool {
    let after = from_quote.trim_start_matches('"').trim_start();
    after.is_empty() || after.starts_with([',', ']', '}', ')', '#', '/', '?', ':', '='])
}

fn last_at_sign(text: &str) -> Option<usize> {
    [text.rfind('@'), text.rfind("%40")].into_iter().flatten().max()
}

/// The end of the earliest of these needles.
fn first_of(text: &str, needles: &[&str]) -> Option<usize> {
    needles.iter().filter_map(|needle| text.find(needle).map(|at| at + needle.len())).min()
}

/// What is assigned to a name such as `password`.
fn after_words(text: &str) -> Vec<Range<usize>> {
    let lower = text.to_ascii_lowercase();
    let bytes = lower.as_bytes();
    let mut found = Vec::new();
    for word in WORDS {
        let mut seen = 0;
        for (at, _) in lower.match_indices(word) {
            if at < seen {
                continue;
            }
            let mut i = at + word.len();
            while i < bytes.len()
                && (bytes[i].is_ascii_alphanumeric() || b"_-\"".contains(&bytes[i]))
            {
                i += 1;
            }
            while i < bytes.len() && (bytes[i] == b' ' || bytes[i] == b'\t') {
                i += 1;
            }
            seen = i;
            if i < bytes.len()
                && (bytes[i] == b'=' || bytes[i] == b':')
                && bytes.get(i + 1) != Some(&b'=')
            {
                seen = after_sign(&lower, i + 1, &mut found);
            }
        }
    }
    found
}

/// Hides the value that starts at `start`; gives the offset up to which nothing is left to hide.
fn after_sign(text: &str, start: usize, found: &mut Vec<Range<usize>>) -> usize {
    let value = start + text[start..].len() - text[start..].trim_start_matches([' ', '\t']).len();
    let line_end = text[value..].find('\n').map_or(text.len(), |end| value + end);
    let line = &text[value..line_end];
    if line.starts_with('{') {
        return in_object(text, value, found);
    }
    if let Some(marker) = line.strip_prefix("<<") {
        let delimiter = marker.trim_start_matches('-').trim();
        let mut end = line_end;
        for line in text[line_end..].split_inclusive('\n') {
            end += line.len();
            if line.trim() == delimiter {
                break;
            }
        }
        found.push(line_end..end);
        return end;
    }
    // Without quotes: the value of an option in a URI, or a slip.
    let bare = line.find([' ', '\t', ',', '}', '&', '#', '\r', '"']).unwrap_or(line.len());
    let token = &line[..bare];
    let is_expression =
        ["var.", "local.", "null", "(", "["].iter().any(|start| token.starts_with(start))
            || token.contains('(');
    if !token.is_empty() && !is_expression {
        found.push(value..value + bare);
        return value + bare;
    }
    match (line.find('"'), line.rfind('"')) {
        (Some(first), Some(last)) if last > first => found.push(value + first + 1..value + last),
        (Some(first), _) => found.push(value + first + 1..line_end),
        _ => {}
    }
    line_end
}

/// Quoted strings up to the closing brace, but for those that name where the secret is.
fn in_object(text: &str, open: usize, found: &mut Vec<Range<usize>>) -> usize {
    let bytes = text.as_bytes();
    let (mut i, mut depth) = (open, 0usize);
    while i < bytes.len() {
        match bytes[i] {
            b'{' => depth += 1,
            b'}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return i;
                }
            }
            b'"' => {
                let mut end = i + 1;
                while end < bytes.len() && bytes[end] != b'"' && bytes[end] != b'\n' {
                    end += if bytes[end] == b'\\' { 2 } else { 1 };
                }
                let end = end.min(bytes.len());
                if text.is_char_boundary(end) {
                    let is_key =
                        text[end..].trim_start_matches(['"', ' ', '\t']).starts_with(['=', ':']);
                    if !is_key && !["env", "file"].contains(&key_before(text, open, i)) {
                        found.push(i + 1..end);
                    }
                }
                i = end;
            }
            _ => {}
        }
        i += 1;
    }
    bytes.len()
}

/// The key whose value starts at `at`.
fn key_before(text: &str, open: usize, at: usize) -> &str {
    /// Longer than `file` with any reasonable space around its sign.
    const FAR: usize = 64;
    let mut start = at.saturating_sub(FAR).max(open);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    let before = text[start..at].trim_end_matches([' ', '\t', '=', ':', '"']);
    before.rsplit(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::secrets_in;

    fn masked(text: &str) -> String {
        let mut out = String::new();
        let mut at = 0;
        for range in secrets_in(text) {
            out.push_str(&text[at..range.start]);
            out.push('*');
            at = range.end;
        }
        out.push_str(&text[at..]);
        out
    }

    #[test]
    fn passwords_in_uris_are_found() {
        for (text, expected) in [
            (r#"uri = "mongodb://u:pw@h:1/db""#, r#"uri = "mongodb://u:*@h:1/db""#),
            (r#"uri = "mongodb://u%3Apw%40h""#, r#"uri = "mongodb://u%3A*%40h""#),
            (r#"uri = "mongodb://u:p@w/x@h""#, r#"uri = "mongodb://u:*@h""#),
            (
                r#"uri = "mongodb://h:27017,i:27018/?a=b""#,
                r#"uri = "mongodb://h:27017,i:27018/?a=b""#,
            ),
            (r#"uri = "mongodb://u@h:27017""#, r#"uri = "mongodb://u@h:27017""#),
            (r#"["mongodb://h:1", "mongodb://u:pw@h"]"#, r#"["mongodb://h:1", "mongodb://u:*@h"]"#),
            (r#"uri = "mongodb://u:p"w@h:27017""#, r#"uri = "mongodb://u:*@h:27017""#),
            (
                r#"x = "mongodb://h/?tlsCertificateKeyFilePassword=abc&x=y""#,
                r#"x = "mongodb://h/?tlsCertificateKeyFilePassword=*&x=y""#,
            ),
        ] {
            assert_eq!(masked(text), expected, "{text}");
        }
    }

    #[test]
    fn assigned_secrets_are_found() {
        for (text, expected) in [
            (r#"password = "hunter2""#, r#"password = "*""#),
            (r#"password = "hunter2"#, r#"password = "*"#),
            (r#"PASSWORD="hunter2""#, r#"PASSWORD="*""#),
            (r#"db_password : "a \" b""#, r#"db_password : "*""#),
            ("password = hunter2", "password = *"),
            ("password = var.x", "password = var.x"),
            (r#"password = { env = "NAME" }"#, r#"password = { env = "NAME" }"#),
            (r#"password = { file: "/a/b" }"#, r#"password = { file: "/a/b" }"#),
            (
                r#"password = { value = "hunter2", env = "X" }"#,
                r#"password = { value = "*", env = "X" }"#,
            ),
            (
                "password = {\n  plain = \"hunter2\"\n}\nx = \"y\"",
                "password = {\n  plain = \"*\"\n}\nx = \"y\"",
            ),
            ("password = <<EOT\nhunter2\nEOT\nx = \"y\"", "password = <<EOT*x = \"y\""),
            (r#"passwords_allowed == "x""#, r#"passwords_allowed == "x""#),
        ] {
            assert_eq!(masked(text), expected, "{text}");
        }
    }

    #[test]
    fn any_text_is_taken() {
        for text in [
            "password",
            "password =",
            "password = {",
            "password = \"",
            "://",
            "://@",
            "ä://ü:ö@",
            "password = {\"\\",
        ] {
            secrets_in(text);
        }
    }
}
