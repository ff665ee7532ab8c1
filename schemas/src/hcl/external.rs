//! Values that were evaluated elsewhere, Terraform's, through the checks that a file's blocks go
//! through.
//!
//! It does what `body` does with a parsed block: what differs is that values may be unknown yet,
//! and that their places are their paths. The rules over several attributes are the loader's own.

use std::collections::BTreeMap;
use std::path::Path;

use super::DaemonSettings;
use super::body::{Filled, Setting};
use super::check::{Circumstances, Part, check};
use super::diagnostic::{Diagnostic, Diagnostics, Place, Report};
use super::migration::{Declared, build};
use super::schema::{BlockSchema, DAEMON, Kind, MIGRATION, Times};
use super::source::quoted;
use super::value::Value;

/// A block's values by the names of its schema.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BlockValues {
    /// Its label, where it takes one; `None`: not known yet.
    pub label: Option<String>,
    /// What is given; what is null or left out is not here.
    pub attributes: BTreeMap<String, Given>,
    /// The blocks in it, in order.
    pub blocks: BTreeMap<String, Vec<BlockValues>>,
}

/// What is given for an attribute.
#[derive(Debug, Clone, PartialEq)]
pub enum Given {
    /// Something, not known yet.
    Unknown,
    /// A value.
    Known(serde_json::Value),
}

/// What came of a block's values.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome<T> {
    /// What was made of them; `None` where something is wrong or not known yet.
    pub made: Option<T>,
    /// Errors and warnings; their places are paths.
    pub diagnostics: Diagnostics,
}

/// Stands in for a label that is not known yet, so that everything else is looked at.
const UNKNOWN_LABEL: &str = "unknown";

/// Checks the values of a `migration` block. Relative files are taken from `dir`, which is
/// absolute.
#[must_use]
pub fn check_migration(dir: &Path, values: &BlockValues) -> Outcome<Declared> {
    let mut report = Report::default();
    let mut filled = fill(&MIGRATION, values, dir, &Around::default(), &mut report);
    let label = values.label.as_deref().unwrap_or(UNKNOWN_LABEL);
    filled.label = Some((label.to_owned(), Place::of_value("name")));
    let made = build(&filled, "", &mut report).map(|(_, declared)| declared);
    let made =
        made.filter(|_| values.label.is_some() && !has_unknown(values) && report.errors() == 0);
    Outcome { made, diagnostics: report.finish() }
}

/// Checks the values of a `daemon` block. A relative socket is taken from `dir`, which is absolute.
#[must_use]
pub fn check_daemon(dir: &Path, values: &BlockValues) -> Outcome<DaemonSettings> {
    let mut report = Report::default();
    let filled = fill(&DAEMON, values, dir, &Around::default(), &mut report);
    let settings = DaemonSettings::of(filled, &mut report);
    let made = (report.errors() == 0 && !has_unknown(values)).then_some(settings);
    Outcome { made, diagnostics: report.finish() }
}

/// Checks the values of a block of another schema, whose paths start with `path`.
#[must_use]
pub fn check_block(
    schema: &'static BlockSchema,
    dir: &Path,
    path: &str,
    values: &BlockValues,
) -> Diagnostics {
    let mut report = Report::default();
    let around = Around { path: path.to_owned() };
    fill(schema, values, dir, &around, &mut report);
    report.finish()
}

/// Whether anything in a block is not known yet, labels apart.
#[must_use]
pub fn has_unknown(values: &BlockValues) -> bool {
    values.attributes.values().any(|given| *given == Given::Unknown)
        || values.blocks.values().flatten().any(has_unknown)
}

/// Where a block stands.
#[derive(Debug, Default)]
struct Around {
    /// With places in lists: `sharding.collection[0]`.
    path: String,
}

impl Around {
    fn attribute(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }
}

fn fill(
    schema: &'static BlockSchema,
    values: &BlockValues,
    dir: &Path,
    around: &Around,
    report: &mut Report,
) -> Filled {
    let here = Place::of_value(around.path.as_str());
    let label = schema.label.and_then(|what| {
        let place = Place::of_value(around.attribute(what));
        values.label.clone().map(|label| (label, place))
    });
    let mut filled = Filled {
        schema,
        label,
        place: here.clone(),
        attributes: BTreeMap::new(),
        failed: Vec::new(),
        blocks: Vec::new(),
    };
    for (name, given) in &values.attributes {
        attribute(schema, name, given, dir, around, &mut filled, report);
    }
    for required in schema
        .attributes
        .iter()
        .filter(|one| one.required && !values.attributes.contains_key(one.name))
    {
        let summary = format!("the attribute {:?} is missing", required.name);
        report.add(Diagnostic::error(summary, required.description).at(here.clone()));
    }
    for (name, blocks) in &values.blocks {
        let Some(inner) = schema.block(name) else {
            report.add(unknown_name(schema, "block", name).at(here.clone()));
            continue;
        };
        for (index, block) in blocks.iter().enumerate() {
            let path = around.attribute(name);
            let path = if inner.times == Times::Any { format!("{path}[{index}]") } else { path };
            let around = Around { path };
            filled.blocks.push(fill(inner, block, dir, &around, report));
        }
    }
    for inner in schema.blocks.iter().filter(|inner| inner.times == Times::Once) {
        if !filled.blocks.iter().any(|block| block.schema.name == inner.name) {
            let summary = format!("the block {:?} is missing", inner.name);
            report.add(Diagnostic::error(summary, inner.description).at(here.clone()));
        }
    }
    filled
}

fn attribute(
    schema: &'static BlockSchema,
    name: &str,
    given: &Given,
    dir: &Path,
    around: &Around,
    filled: &mut Filled,
    report: &mut Report,
) {
    let path = around.attribute(name);
    let Some(known) = schema.attribute(name) else {
        report.add(unknown_name(schema, "attribute", name).at(Place::of_value(path)));
        return;
    };
    let Given::Known(json) = given else {
        // Nothing follows from what is not known: neither its value nor its absence.
        filled.failed.push(known.name);
        return;
    };
    let value = Value::from(json.clone());
    // Connection strings and references to secrets may hold what must not come up in a message.
    let hidden = matches!(known.kind, Kind::Uri | Kind::Secret);
    // Terraform has converted values to their types already, so that none is as it was written.
    let circumstances = Circumstances { name: known.name, dir, hidden, computed: true };
    let value = match check(known.kind, &value, &circumstances) {
        Ok(value) => value,
        Err(refusals) => {
            filled.failed.push(known.name);
            for refusal in refusals {
                let place = match &refusal.part {
                    Part::All => path.clone(),
                    Part::Element(index) => format!("{path}[{index}]"),
                    Part::Key(key) => format!("{path}[{key:?}]"),
                };
                let diagnostic =
                    Diagnostic::error(refusal.summary, refusal.detail).with_code(refusal.code);
                report.add(diagnostic.at(Place::of_value(place)));
            }
            return;
        }
    };
    filled
        .attributes
        .insert(known.name, Setting { value, place: Place::of_value(path), sensitive: false });
}

fn unknown_name(schema: &BlockSchema, what: &str, name: &str) -> Diagnostic {
    let detail = format!("A {} block has no {what} of this name.", schema.name);
    Diagnostic::error(format!("unknown {what} {}", quoted(name)), detail)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::{Value, json};

    use super::{BlockValues, Given, check_daemon, check_migration};
    use crate::hcl::{File, Inputs, load_texts};

    fn values(json: &Value) -> BlockValues {
        let Value::Object(entries) = json else { panic!("an object") };
        let mut values = BlockValues { label: Some("orders".to_owned()), ..BlockValues::default() };
        for (name, value) in entries {
            match value {
                Value::String(text) if text == "?" => {
                    drop(values.attributes.insert(name.clone(), Given::Unknown))
                }
                Value::Object(_) if name != "password" => {
                    values.blocks.insert(name.clone(), vec![self::values(value)]);
                }
                _ => drop(values.attributes.insert(name.clone(), Given::Known(value.clone()))),
            }
        }
        values
    }

    fn said(json: &Value) -> Vec<(String, String)> {
        let outcome = check_migration(Path::new("/work"), &values(json));
        assert!(outcome.made.is_none());
        let of = |one: &crate::hcl::Diagnostic| {
            (
                one.place.as_ref().and_then(|place| place.value_path()).unwrap_or("-").to_owned(),
                one.summary.clone(),
            )
        };
        outcome.diagnostics.iter().map(of).collect()
    }

    #[test]
    fn the_same_declaration_comes_out_as_of_a_file() {
        let text = r#"migration "orders" {
          source {
            uri      = "mongodb://a"
            username = "u"
            password = { env = "A" }
            tls { ca_file = "./ca.pem" }
          }
          destination { uri = "mongodb://b" }
          namespaces { include = ["shop.*"] }
          cutover {
            window     = "48h"
            extensions = 2
          }
        }"#;
        let files = vec![File { name: "main.hcl".to_owned(), text: text.to_owned() }];
        let loaded = load_texts(Path::new("/work"), files, &Inputs::default()).expect("it loads");
        let made = check_migration(
            Path::new("/work"),
            &values(&json!({
                "source": {
                    "uri": "mongodb://a", "username": "u", "password": {"env": "A"},
                    "tls": {"ca_file": "./ca.pem"},
                },
                "destination": {"uri": "mongodb://b"},
                "namespaces": {"include": ["shop.*"]},
                "cutover": {"window": "48h", "extensions": "2"},
            })),
        );
        assert_eq!(
            made.made.expect("it is whole").spec,
            loaded.migrations.values().next().expect("one").spec
        );
    }

    #[test]
    fn mistakes_have_the_path_of_their_value() {
        let told = said(&json!({
            "source": {"uri": "mongodb://u:p@a", "password": {"evn": "A"}},
            "destination": {"uri": "mongodb://b"},
            "namespaces": {"include": ["shop.*", "x"]},
            "cutover": {"window": "soon"},
        }));
        let paths: Vec<&str> = told.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(
            paths,
            ["cutover.window", "namespaces.include[1]", "source.password[\"evn\"]", "source.uri"],
            "{told:?}"
        );
        assert!(!format!("{told:?}").contains(":p@"), "{told:?}");
        assert_eq!(
            said(&json!({"destination": {"uri": "mongodb://b"}}))[0].1,
            "the block \"source\" is missing"
        );
    }

    #[test]
    fn what_is_not_known_is_no_mistake() {
        let told = said(&json!({
            "paused": "?",
            "source": {"uri": "?", "username": "u", "password": "?"},
            "destination": {"uri": "mongodb://b"},
        }));
        assert_eq!(told, []);
        let one = values(&json!({"endpoint": "unix:d.sock", "workspace": "shop"}));
        let daemon = check_daemon(Path::new("/work"), &one).made.expect("it is whole");
        assert_eq!(
            (daemon.endpoint.as_deref(), daemon.workspace.as_str()),
            (Some("unix:///work/d.sock"), "shop")
        );
    }
}
