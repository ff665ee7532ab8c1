//! "Did you mean": the known name nearest to a misspelt one.

/// The candidate that `name` is probably a slip for.
pub(crate) fn nearest<'a>(
    name: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    // Names are short; comparing a very long one with everything would only take time.
    const LONGEST: usize = 64;
    if name.len() > LONGEST {
        return None;
    }
    let plain = |text: &str| text.to_ascii_lowercase().replace('-', "_");
    let name = plain(name);
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&name, &plain(candidate)), candidate))
        .filter(|&(distance, candidate)| distance <= (candidate.len().max(name.len()) / 3).max(1))
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, candidate)| candidate)
}

/// The same as a sentence to append to a detail, or nothing.
pub(crate) fn did_you_mean<'a>(
    name: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> String {
    nearest(name, candidates)
        .map(|candidate| format!(" Did you mean {candidate:?}?"))
        .unwrap_or_default()
}

/// A list in words: `a, b or c`.
pub(crate) fn any_of<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.into_iter().collect();
    match names.split_last() {
        None => String::new(),
        Some((last, [])) => (*last).to_owned(),
        Some((last, first)) => format!("{} or {last}", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::{any_of, nearest};

    #[test]
    fn slips_find_their_name() {
        let names = ["max_lag", "max_downtime", "window", "acknowledge"];
        assert_eq!(nearest("max_lagg", names), Some("max_lag"));
        assert_eq!(nearest("max-lag", names), Some("max_lag"));
        assert_eq!(nearest("acknowlege", names), Some("acknowledge"));
        assert_eq!(nearest("Window", names), Some("window"));
        assert_eq!(nearest("verify", names), None);
        assert_eq!(nearest(&"w".repeat(1_000_000), names), None);
    }

    #[test]
    fn lists_read_as_words() {
        assert_eq!(any_of(["a"]), "a");
        assert_eq!(any_of(["a", "b", "c"]), "a, b or c");
    }
}
