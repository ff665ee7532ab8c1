//! Functions of texts.

use regex::{Captures, Regex};

use super::super::value::Value;
use super::{Answer, Call, Function, Problem, format, function, problem, problem_with};

pub(super) const FUNCTIONS: &[Function] = &[
    function("chomp", "chomp(string)", 1, Some(1), |call| {
        Ok(call.text(0)?.trim_end_matches(['\n', '\r']).into())
    }),
    function("endswith", "endswith(string, suffix)", 2, Some(2), |call| {
        Ok(call.text(0)?.ends_with(&call.text(1)?).into())
    }),
    function("format", "format(pattern, values...)", 1, None, format::format),
    function("formatlist", "formatlist(pattern, values...)", 1, None, format::format_list),
    function("indent", "indent(spaces, string)", 2, Some(2), indent),
    function("join", "join(separator, list...)", 2, None, join),
    function("lower", "lower(string)", 1, Some(1), |call| Ok(call.text(0)?.to_lowercase().into())),
    function("regex", "regex(pattern, string)", 2, Some(2), regex),
    function("regexall", "regexall(pattern, string)", 2, Some(2), regex_all),
    function("replace", "replace(string, search, replacement)", 3, Some(3), replace),
    function("sha256", "sha256(string)", 1, Some(1), |call| {
        Ok(crate::spec::sha256_hex(call.text(0)?.as_bytes()).into())
    }),
    function("split", "split(separator, string)", 2, Some(2), split),
    function("startswith", "startswith(string, prefix)", 2, Some(2), |call| {
        Ok(call.text(0)?.starts_with(&call.text(1)?).into())
    }),
    function("strcontains", "strcontains(string, part)", 2, Some(2), |call| {
        Ok(call.text(0)?.contains(&call.text(1)?).into())
    }),
    function("strrev", "strrev(string)", 1, Some(1), |call| {
        Ok(call.text(0)?.chars().rev().collect::<String>().into())
    }),
    function("substr", "substr(string, offset, length)", 3, Some(3), substr),
    function("title", "title(string)", 1, Some(1), title),
    function("trim", "trim(string, characters)", 2, Some(2), |call| {
        let characters: Vec<char> = call.text(1)?.chars().collect();
        Ok(call.text(0)?.trim_matches(characters.as_slice()).into())
    }),
    function("trimprefix", "trimprefix(string, prefix)", 2, Some(2), |call| {
        let (text, prefix) = (call.text(0)?, call.text(1)?);
        Ok(text.strip_prefix(&prefix).unwrap_or(&text).into())
    }),
    function("trimsuffix", "trimsuffix(string, suffix)", 2, Some(2), |call| {
        let (text, suffix) = (call.text(0)?, call.text(1)?);
        Ok(text.strip_suffix(&suffix).unwrap_or(&text).into())
    }),
    function("trimspace", "trimspace(string)", 1, Some(1), |call| Ok(call.text(0)?.trim().into())),
    function("upper", "upper(string)", 1, Some(1), |call| {
        Ok(call.text(0)?.chars().map(upper).collect::<String>().into())
    }),
    function("urlencode", "urlencode(string)", 1, Some(1), url_encode),
];

fn indent(call: &Call<'_>) -> Answer {
    let (spaces, text) = (call.count(0)?, call.text(1)?);
    call.room_for(text.len().saturating_add(spaces.saturating_mul(text.matches('\n').count())))?;
    Ok(text
        .replace('\n', &format!("\n{}", " ".repeat(if text.contains('\n') { spaces } else { 0 })))
        .into())
}

fn join(call: &Call<'_>) -> Answer {
    let separator = call.text(0)?;
    let mut texts = Vec::new();
    for index in 1..call.len() {
        texts.extend(call.texts(index)?);
    }
    call.room_for(
        texts
            .iter()
            .map(|text| text.len().saturating_add(separator.len()))
            .fold(0, usize::saturating_add),
    )?;
    Ok(texts.join(&separator).into())
}

fn split(call: &Call<'_>) -> Answer {
    let (separator, text) = (call.text(0)?, call.text(1)?);
    if text.is_empty() {
        return Ok(vec!["".into()].into());
    }
    call.room_for(text.len().saturating_mul(if separator.is_empty() { 49 } else { 1 }))?;
    if separator.is_empty() {
        return Ok(text.chars().map(|c| Value::from(c.to_string())).collect::<Vec<_>>().into());
    }
    Ok(text.split(&separator).map(Value::from).collect::<Vec<_>>().into())
}

fn substr(call: &Call<'_>) -> Answer {
    let text: Vec<char> = call.text(0)?.chars().collect();
    let (offset, length) = (call.whole(1)?, call.whole(2)?);
    let size = i64::try_from(text.len()).unwrap_or(i64::MAX);
    let start = if offset < 0 { (size + offset).max(0) } else { offset.min(size) };
    let end = if length < 0 { size } else { start.saturating_add(length).min(size) };
    let index = |at: i64| usize::try_from(at).unwrap_or(0);
    Ok(text[index(start)..index(end)].iter().collect::<String>().into())
}

/// The capital of a letter that has one of one letter: as in Terraform, `ß` stays.
fn upper(c: char) -> char {
    let mut capital = c.to_uppercase();
    match (capital.next(), capital.next()) {
        (Some(only), None) => only,
        _ => c,
    }
}

fn title(call: &Call<'_>) -> Answer {
    let mut before = ' ';
    let mut out = String::new();
    for c in call.text(0)?.chars() {
        let in_word = before.is_alphanumeric()
            || before == '_'
            || (!before.is_ascii() && !before.is_whitespace());
        out.push(if in_word { c } else { upper(c) });
        before = c;
    }
    Ok(out.into())
}

fn url_encode(call: &Call<'_>) -> Answer {
    use std::fmt::Write as _;
    let mut out = String::new();
    for byte in call.text(0)?.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(byte))
            }
            b' ' => out.push('+'),
            // Writing to a String cannot fail.
            _ => drop(write!(out, "%{byte:02X}")),
        }
    }
    Ok(out.into())
}

fn compile(call: &Call<'_>, index: usize, pattern: &str) -> Result<Regex, Problem> {
    match Regex::new(pattern) {
        Ok(regex) => Ok(regex),
        Err(error) => {
            // The library's own text has several lines, with a mark that does not survive
            // indentation.
            let text = error.to_string();
            let reason = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
            problem_with(
                index,
                format!("{} is not a regular expression: {reason}.", call.quoted(index)),
            )
        }
    }
}

/// What one match gives: its text, its groups as a list, or its named groups as an object.
fn matched(regex: &Regex, captures: &Captures<'_>) -> Value {
    let text =
        |group: Option<regex::Match<'_>>| group.map_or(Value::Null, |group| group.as_str().into());
    if regex.captures_len() == 1 {
        return text(captures.get(0));
    }
    let names: Vec<&str> = regex.capture_names().flatten().collect();
    if names.is_empty() {
        return captures.iter().skip(1).map(text).collect::<Vec<_>>().into();
    }
    Value::Map(names.into_iter().map(|name| (name.to_owned(), text(captures.name(name)))).collect())
}

fn regex(call: &Call<'_>) -> Answer {
    let (pattern, text) = (call.text(0)?, call.text(1)?);
    let regex = compile(call, 0, &pattern)?;
    match regex.captures(&text) {
        Some(captures) => Ok(matched(&regex, &captures)),
        None => problem_with(1, "The string does not match the pattern."),
    }
}

fn regex_all(call: &Call<'_>) -> Answer {
    let (pattern, text) = (call.text(0)?, call.text(1)?);
    let regex = compile(call, 0, &pattern)?;
    let mut found = Vec::new();
    let mut weight = 0usize;
    for captures in regex.captures_iter(&text) {
        let value = matched(&regex, &captures);
        weight = weight.saturating_add(value.weight());
        call.room_for(weight)?;
        found.push(value);
    }
    Ok(found.into())
}

/// A search between slashes is a regular expression, as in Terraform.
fn replace(call: &Call<'_>) -> Answer {
    let (text, search, replacement) = (call.text(0)?, call.text(1)?, call.text(2)?);
    let pattern = search.strip_prefix('/').and_then(|rest| rest.strip_suffix('/'));
    if let Some(pattern) = pattern {
        let regex = compile(call, 1, pattern)?;
        let groups = regex.captures_len();
        let matches = regex.find_iter(&text).count();
        let longest = replacement.len().saturating_add(text.len().saturating_mul(groups));
        // A replacement can repeat whole groups: the bound is rough where it uses any.
        let each = if replacement.contains('$') { longest } else { replacement.len() };
        if matches.saturating_mul(each) > call.evaluator.budget().saturating_mul(16) {
            return problem("The result would be too large.");
        }
        return Ok(regex.replace_all(&text, replacement.as_str()).into_owned().into());
    }
    let matches =
        if search.is_empty() { text.chars().count() + 1 } else { text.matches(&search).count() };
    call.room_for(text.len().saturating_add(matches.saturating_mul(replacement.len())))?;
    Ok(text.replace(&search, &replacement).into())
}
