//! One attribute's value against its kind. Knows no files: what is wrong is said relative to the
//! value.

use std::path::{Component, Path, PathBuf};

use super::schema::Kind;
use super::source::quoted;
use super::suggest::{any_of, did_you_mean, nearest};
use super::uri::MongoUri;
use super::value::{Value, number_text};
use crate::fault::FaultCode;
use crate::id::Workspace;
use crate::namespace::NamespacePattern;
use crate::spec::{RateLimit, SecretRef};
use crate::time::Length;

/// A value that has passed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Checked {
    Flag(bool),
    Whole(u32),
    Text(String),
    Length(Length),
    Patterns(Vec<NamespacePattern>),
    Texts(Vec<String>),
    Uri(MongoUri),
    Secret(SecretRef),
    File(PathBuf),
    Rate(RateLimit),
    Workspace(Workspace),
    Value(Value),
    /// Looked at elsewhere.
    Later,
}

/// Which part of a value is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    All,
    Element(usize),
    Key(String),
}

/// What is wrong with a value.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) part: Part,
    pub(crate) code: FaultCode,
    pub(crate) summary: String,
    pub(crate) detail: String,
}

/// What a check needs to know besides the value.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Circumstances<'a> {
    /// The attribute's name.
    pub(crate) name: &'a str,
    /// Where relative file names start, absolute.
    pub(crate) dir: &'a Path,
    /// Whether the value must not be quoted.
    pub(crate) hidden: bool,
    /// Whether it was computed: then strings that hold a number or bool pass for one, as in
    /// Terraform.
    pub(crate) computed: bool,
}

fn refusal(part: Part, summary: impl Into<String>, detail: impl Into<String>) -> Refusal {
    Refusal {
        part,
        code: FaultCode::InvalidConfiguration,
        summary: summary.into(),
        detail: detail.into(),
    }
}

fn refuse<T>(
    part: Part,
    summary: impl Into<String>,
    detail: impl Into<String>,
) -> Result<T, Vec<Refusal>> {
    Err(vec![refusal(part, summary, detail)])
}

/// All values, or everything that is wrong with any of them.
fn all<T>(results: impl IntoIterator<Item = Result<T, Refusal>>) -> Result<Vec<T>, Vec<Refusal>> {
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for result in results {
        match result {
            Ok(value) => good.push(value),
            Err(refusal) => bad.push(refusal),
        }
    }
    if bad.is_empty() { Ok(good) } else { Err(bad) }
}

impl Circumstances<'_> {
    fn wrong_type<T>(&self, expected: &str, value: &Value) -> Result<T, Vec<Refusal>> {
        let detail = match (expected, value) {
            ("a string", Value::Number(_) | Value::Bool(_)) => "Write it in quotes.",
            ("a number" | "a whole number" | "a bool", Value::String(_)) => {
                "Write it without quotes."
            }
            ("a list of strings", Value::String(_)) => "Write it in brackets: [\"...\"].",
            _ => "",
        };
        refuse(
            Part::All,
            format!("{} has the wrong type: expected {expected}, got {}", self.name, value.kind()),
            detail,
        )
    }

    fn shown(&self, text: &str) -> String {
        if self.hidden { "(sensitive)".to_owned() } else { quoted(text) }
    }

    fn text<'v>(&self, value: &'v Value) -> Result<&'v str, Vec<Refusal>> {
        match value {
            Value::String(text) => Ok(text),
            other => self.wrong_type("a string", other),
        }
    }

    fn texts(&self, value: &Value) -> Result<Vec<String>, Vec<Refusal>> {
        let Value::List(items) = value else { return self.wrong_type("a list of strings", value) };
        let texts = items.iter().enumerate().map(|(index, item)| match item {
            Value::String(text) => Ok(text.clone()),
            other => Err(refusal(
                Part::Element(index),
                format!(
                    "{} has the wrong type: expected a list of strings, got {} in it",
                    self.name,
                    other.kind()
                ),
                "",
            )),
        });
        all(texts)
    }
}

/// Checks a value that is not null.
pub(crate) fn check(
    kind: Kind,
    value: &Value,
    here: &Circumstances<'_>,
) -> Result<Checked, Vec<Refusal>> {
    let name = here.name;
    match kind {
        Kind::Flag => match value {
            Value::Bool(flag) => Ok(Checked::Flag(*flag)),
            other => match other.to_bool().filter(|_| here.computed) {
                Some(flag) => Ok(Checked::Flag(flag)),
                None => here.wrong_type("a bool", other),
            },
        },
        Kind::Whole { least, most } => whole(value, least, most, here).map(Checked::Whole),
        Kind::Duration => {
            let text = here.text(value)?;
            match text.parse::<Length>() {
                Ok(length) if length.get().is_zero() => refuse(
                    Part::All,
                    format!("{name} must be longer than nothing"),
                    "Write it like 90s, 5m, 120h or 1h30m.",
                ),
                Ok(length) => Ok(Checked::Length(length)),
                Err(_) => refuse(
                    Part::All,
                    format!("{name} is not a duration: {}", here.shown(text)),
                    "Write it like 90s, 5m, 120h or 1h30m: whole numbers with the units d, h, m, \
                     s, ms, the larger first, and at most ten years.",
                ),
            }
        }
        Kind::Choice(choices) => {
            let text = here.text(value)?;
            if choices.contains(&text) {
                return Ok(Checked::Text(text.to_owned()));
            }
            let choices = choices.iter().copied();
            let mean =
                if here.hidden { String::new() } else { did_you_mean(text, choices.clone()) };
            refuse(
                Part::All,
                format!("{name} cannot be {}", here.shown(text)),
                format!("It is {}.{mean}", any_of(choices)),
            )
        }
        Kind::Text => here.text(value).map(|text| Checked::Text(text.to_owned())),
        Kind::Patterns => {
            let patterns = here.texts(value)?.into_iter().enumerate().map(|(index, text)| {
                text.parse::<NamespacePattern>().map_err(|_| {
                    refusal(
                        Part::Element(index),
                        format!("{} is not a namespace pattern", here.shown(&text)),
                        "Write db.collection, with * for any characters within a part, as in \
                         shop.* or *.audit.",
                    )
                })
            });
            all(patterns).map(Checked::Patterns)
        }
        Kind::ShardKey => shard_key(here.texts(value)?, here).map(Checked::Texts),
        Kind::Uri => match MongoUri::parse(here.text(value)?) {
            Ok(uri) => Ok(Checked::Uri(uri)),
            Err(error) => {
                let unknown = error.unknown.filter(|_| !here.hidden);
                let summary = unknown.map_or(error.summary, |name| {
                    format!("the URI has no option {}", quoted(&name))
                });
                refuse(Part::All, summary, error.detail)
            }
        },
        Kind::Secret => secret(value, here).map(Checked::Secret),
        Kind::File => {
            let text = here.text(value)?;
            if text.is_empty() || text.contains('\0') {
                return refuse(
                    Part::All,
                    format!("{name} names no file"),
                    "Write a path, relative to this file or absolute.",
                );
            }
            Ok(Checked::File(absolute(here.dir, text)))
        }
        Kind::Rate => {
            let text = here.text(value)?;
            match text.parse::<RateLimit>() {
                Ok(rate) => Ok(Checked::Rate(rate)),
                Err(_) => refuse(
                    Part::All,
                    format!("{name} is not a rate: {}", here.shown(text)),
                    "Write it like 50MB/s or 20000docs/s: a whole number with B/s, kB/s, MB/s, \
                     GB/s or docs/s.",
                ),
            }
        }
        Kind::Endpoint => endpoint(here.text(value)?, here).map(Checked::Text),
        Kind::Name => match Workspace::new(here.text(value)?) {
            Ok(workspace) => Ok(Checked::Workspace(workspace)),
            Err(_) => refuse(Part::All, format!("{name} is not a valid name"), NAME_RULE),
        },
        Kind::Any => Ok(Checked::Value(value.clone())),
        Kind::Type | Kind::Expression => Ok(Checked::Later),
    }
}

/// The rule of names.
pub(crate) const NAME_RULE: &str =
    "Use 1 to 64 letters, digits, - and _, starting with a letter or a digit.";

fn whole(
    value: &Value,
    least: u32,
    most: u32,
    here: &Circumstances<'_>,
) -> Result<u32, Vec<Refusal>> {
    let name = here.name;
    let number = match value {
        Value::Number(number) => *number,
        other => match other.to_number().filter(|_| here.computed) {
            Some(number) => number,
            None => return here.wrong_type("a whole number", other),
        },
    };
    let fits = number
        .as_u64()
        .and_then(|whole| u32::try_from(whole).ok())
        .filter(|whole| (least..=most).contains(whole));
    match fits {
        Some(whole) => Ok(whole),
        None => {
            let bounds = if most == u32::MAX {
                format!("{least} or more")
            } else {
                format!("from {least} to {most}")
            };
            let shown = if here.hidden { "(sensitive)".to_owned() } else { number_text(&number) };
            refuse(
                Part::All,
                format!("{name} cannot be {shown}"),
                format!("It is a whole number, {bounds}."),
            )
        }
    }
}

fn shard_key(fields: Vec<String>, here: &Circumstances<'_>) -> Result<Vec<String>, Vec<Refusal>> {
    if fields.is_empty() {
        return refuse(
            Part::All,
            format!("{} has no field", here.name),
            "Write the fields in order, as in [\"customer:1\", \"_id:hashed\"].",
        );
    }
    let fields =
        all(fields.into_iter().enumerate().map(|(index, text)| match text.rsplit_once(':') {
            Some((field, "1" | "hashed")) if !field.is_empty() => Ok(text),
            _ => {
                let summary = format!("{} is not a field of a shard key", here.shown(&text));
                Err(refusal(Part::Element(index), summary, "Write field:1 or field:hashed."))
            }
        }))?;
    for (index, text) in fields.iter().enumerate() {
        let name = field_of(text);
        let element = |summary: String, detail: &str| {
            Err(vec![refusal(Part::Element(index), summary, detail)])
        };
        if name.split('.').any(|step| step.is_empty() || step.starts_with('$'))
            || name.contains('\0')
        {
            let detail =
                "A path is names with dots between them, and no name is empty or begins with $.";
            return element(format!("{} is no path of a field", here.shown(name)), detail);
        }
        if let Some(other) = fields[..index]
            .iter()
            .map(|earlier| field_of(earlier))
            .find(|earlier| overlap(earlier, name))
        {
            return if other == name {
                element(
                    format!("{} has the field {} twice", here.name, here.shown(name)),
                    "Remove one of them.",
                )
            } else {
                let summary = format!(
                    "{} has the field {} and {}, one within the other",
                    here.name,
                    here.shown(other),
                    here.shown(name)
                );
                element(summary, "Keep one of them.")
            };
        }
    }
    if fields.iter().filter(|field| field.ends_with(":hashed")).count() > 1 {
        return refuse(
            Part::All,
            format!("{} has more than one hashed field", here.name),
            "A shard key has at most one.",
        );
    }
    Ok(fields)
}

/// The path in `path:1` or `path:hashed`.
fn field_of(text: &str) -> &str {
    text.rsplit_once(':').map_or(text, |(field, _)| field)
}

/// Whether two paths are the same, or one lies within the other.
fn overlap(one: &str, other: &str) -> bool {
    let within = |inner: &str, outer: &str| {
        inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    within(one, other) || within(other, one)
}

fn secret(value: &Value, here: &Circumstances<'_>) -> Result<SecretRef, Vec<Refusal>> {
    const HOW: &str =
        "Refer to it: { env = \"VARIABLE\" } or { file = \"/path\" }, of the daemon's machine.";
    let entries = match value {
        Value::Map(entries) => entries,
        Value::String(_) | Value::Number(_) | Value::Bool(_) => {
            let detail = format!(
                "A file that is shared and reviewed holds no secret. {HOW}\nChange the password \
                 where the file was shared already."
            );
            return refuse(Part::All, format!("{} is a literal secret", here.name), detail);
        }
        other => {
            return refuse(
                Part::All,
                format!("{} has the wrong type: got {}", here.name, other.kind()),
                HOW,
            );
        }
    };
    let known = ["env", "file"];
    if let Some(key) = entries.keys().find(|key| !known.contains(&key.as_str())) {
        let mean = nearest(key, known)
            .map(|known| format!(" Did you mean {known:?}?"))
            .unwrap_or_default();
        return refuse(
            Part::Key(key.clone()),
            format!("{} has no key {}", here.name, quoted(key)),
            format!("{HOW}{mean}"),
        );
    }
    let mut given = entries.iter().filter(|(_, value)| **value != Value::Null);
    let (Some((key, value)), None) = (given.next(), given.next()) else {
        return refuse(Part::All, format!("{} needs either env or file", here.name), HOW);
    };
    let Value::String(text) = value else {
        let summary = format!(
            "{}.{key} has the wrong type: expected a string, got {}",
            here.name,
            value.kind()
        );
        return refuse(Part::Key(key.clone()), summary, "");
    };
    if text.is_empty() || text.contains('\0') || (key == "env" && text.contains('=')) {
        let what = if key == "env" { "a variable of the environment" } else { "a file" };
        return refuse(
            Part::Key(key.clone()),
            format!("{}.{key} does not name {what}", here.name),
            HOW,
        );
    }
    Ok(if key == "env" {
        SecretRef::Env(text.clone())
    } else {
        SecretRef::File(absolute(here.dir, text))
    })
}

/// A path from the folder of the file that names it, without `.` parts. Links stay: what they point
/// to may change.
pub(crate) fn absolute(dir: &Path, text: &str) -> PathBuf {
    dir.join(text).components().filter(|part| *part != Component::CurDir).collect()
}

/// The host and port of `tcp://host:port`; an IPv6 address stands in brackets, which are kept.
#[must_use]
pub fn tcp_endpoint(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.strip_prefix("tcp://")?.rsplit_once(':')?;
    let inner = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let fits = match inner {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty()
                && host
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
        }
    };
    let port = port.parse().ok().filter(|port| *port != 0)?;
    fits.then_some((host, port))
}

fn endpoint(text: &str, here: &Circumstances<'_>) -> Result<String, Vec<Refusal>> {
    /// The kernel's bound on the path of a socket.
    const LONGEST: usize = 107;
    if text.starts_with("tcp:") {
        return match tcp_endpoint(text) {
            Some(_) => Ok(text.to_owned()),
            None => refuse(
                Part::All,
                format!("{} names no host and port", here.name),
                "Write it like tcp://cutover.example.net:7443.",
            ),
        };
    }
    let Some(path) = text.strip_prefix("unix:") else {
        return refuse(
            Part::All,
            format!("{} is not an address", here.name),
            "Write it like unix:///run/cutover/cutoverd.sock or tcp://cutover.example.net:7443.",
        );
    };
    let path = match path.strip_prefix("//") {
        Some(path) if path.starts_with('/') => path,
        Some(_) => {
            let detail = "After unix:// stands an absolute path, as in \
                 unix:///run/cutover/cutoverd.sock; a relative one follows unix:.";
            return refuse(
                Part::All,
                format!("{} has a relative path after unix://", here.name),
                detail,
            );
        }
        None => path,
    };
    if path.is_empty() || path.contains('\0') {
        return refuse(
            Part::All,
            format!("{} names no socket", here.name),
            "Write it like unix:///run/cutover/cutoverd.sock.",
        );
    }
    let path = absolute(here.dir, path);
    let path = path.to_string_lossy();
    if path.len() > LONGEST {
        let detail = format!(
            "It has {} bytes as an absolute path, and the system takes {LONGEST}.",
            path.len()
        );
        return refuse(
            Part::All,
            format!("the path of {} is too long for a socket", here.name),
            detail,
        );
    }
    Ok(format!("unix://{path}"))
}
