//! Figures in words: bytes, counts, lengths of time, and URIs without their secrets.

use std::fmt::Write as _;

/// Bytes in decimal units, as in `1.2 GB`.
#[must_use]
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    #[expect(clippy::cast_precision_loss, reason = "printed with three digits at most")]
    let mut value = bytes as f64 / 1000.0;
    let mut unit = 0;
    // 999.5 would print as 1000.
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    if value >= 99.95 {
        format!("{value:.0} {}", UNITS[unit])
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

/// A count with separators, as in `1,234,567`.
#[must_use]
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A count and its noun, as in `1 collection` and `1,200 documents`.
#[must_use]
pub fn counted(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", count(number))
}

/// A count of indexes.
#[must_use]
pub fn counted_indexes(number: u64) -> String {
    format!("{} {}", count(number), if number == 1 { "index" } else { "indexes" })
}

/// A count of mismatches.
#[must_use]
pub fn counted_mismatches(number: u64) -> String {
    format!("{} {}", count(number), if number == 1 { "mismatch" } else { "mismatches" })
}

/// A length of time in its two largest units, as in `4 min 10 s`, and below ten seconds with a
/// decimal.
#[must_use]
pub fn seconds(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return "unknown".to_owned();
    }
    if seconds < 9.95 {
        let text = format!("{seconds:.1}");
        return format!("{} s", text.strip_suffix(".0").unwrap_or(&text));
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "finite, not negative; saturates"
    )]
    let whole = seconds.round() as u64;
    let parts = [
        (whole / 86_400, "d"),
        (whole / 3600 % 24, "h"),
        (whole / 60 % 60, "min"),
        (whole % 60, "s"),
    ];
    let first = parts.iter().position(|(number, _)| *number > 0).unwrap_or(3);
    let mut text = String::new();
    for (number, unit) in parts.iter().skip(first).take(2).filter(|(number, _)| *number > 0) {
        if !text.is_empty() {
            text.push(' ');
        }
        // Writing to a String cannot fail.
        let _ = write!(text, "{number} {unit}");
    }
    text
}

/// An estimated length of time, which is not reported in parts of a second.
#[must_use]
pub fn estimate(seconds: f64) -> String {
    if (0.0..1.0).contains(&seconds) {
        "less than a second".to_owned()
    } else {
        self::seconds(seconds)
    }
}

/// A whole number of seconds in words.
#[must_use]
pub fn whole_seconds(number: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "printed in its two largest units")]
    seconds(number as f64)
}

/// A share in percent, rounded down, so that 100 % means all of it; `None` of an unknown whole.
#[must_use]
pub fn percent(part: u64, whole: u64) -> Option<u64> {
    (whole > 0).then(|| {
        u64::try_from(u128::from(part.min(whole)) * 100 / u128::from(whole)).unwrap_or(100)
    })
}

/// A connection string without what is secret in it: the password before the `@`.
#[must_use]
pub fn redacted(uri: &str) -> String {
    let Some((scheme, rest)) = uri.split_once("://") else { return uri.to_owned() };
    let authority_end = rest.find(['/', '?']).unwrap_or(rest.len());
    // A password with a bare `/` or `?` is invalid, but must not show either: the last `@` of all
    // decides then.
    let at = rest[..authority_end].rfind('@').or_else(|| rest.rfind('@'));
    let Some(at) = at else { return uri.to_owned() };
    match rest[..at].split_once(':') {
        Some((user, _)) => format!("{scheme}://{user}:***@{}", &rest[at + 1..]),
        None => uri.to_owned(),
    }
}

/// A connection string's hosts, for sentences.
#[must_use]
pub fn hosts(uri: &str) -> String {
    let rest = uri.split_once("://").map_or(uri, |(_, rest)| rest);
    let rest = rest.rfind('@').map_or(rest, |at| &rest[at + 1..]);
    rest[..rest.find(['/', '?']).unwrap_or(rest.len())].to_owned()
}

#[cfg(test)]
mod tests {
    use super::{bytes, count, counted, hosts, percent, redacted, seconds};

    #[test]
    fn figures_are_rounded_for_people() {
        assert_eq!(
            [0, 999, 1000, 999_499, 999_501, 123_456_789, 1_234_567_890_123].map(bytes),
            ["0 B", "999 B", "1.0 kB", "999 kB", "1.0 MB", "123 MB", "1.2 TB"]
        );
        assert_eq!([0, 999, 1000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(counted(1, "document"), "1 document");
        assert_eq!(
            [0.0, 0.84, 4.0, 12.4, 61.0, 3600.0, 90_000.0, f64::NAN].map(seconds),
            ["0 s", "0.8 s", "4 s", "12 s", "1 min 1 s", "1 h", "1 d 1 h", "unknown"]
        );
        assert_eq!(
            [0.0, 0.99, 1.0].map(super::estimate),
            ["less than a second", "less than a second", "1 s"]
        );
        assert_eq!((percent(1, 0), percent(999, 1000), percent(5, 4)), (None, Some(99), Some(100)));
    }

    #[test]
    fn passwords_in_uris_never_show() {
        assert_eq!(redacted("mongodb://u:p@h:1,i:2/db?x=1"), "mongodb://u:***@h:1,i:2/db?x=1");
        assert_eq!(redacted("mongodb://u:p/q@h:1/db"), "mongodb://u:***@h:1/db");
        assert_eq!(redacted("mongodb://u@h/?a=b"), "mongodb://u@h/?a=b");
        assert_eq!(redacted("mongodb://h"), "mongodb://h");
        assert_eq!(hosts("mongodb://u:p@h:1,i:2/db?x=1"), "h:1,i:2");
    }
}
