//! Golden tests of the planner and its renderings: a case in, `plan.txt`, `plan.json` and `plan.md`
//! out.
//!
//! `base.json` has a declaration, a migration as it is and an inspection; a `case.json` says how it
//! differs from them. `UPDATE_GOLDEN=1 cargo test -p provider --test it plan_goldens` writes the
//! outputs anew.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use provider::declaration::{Declaration, Reach};
use provider::output::pretty;
use provider::plan::{Action, DriftKind, Folded, Plan, plan};
use provider::render::paint::Paint;
use provider::render::{diagnostics, markdown, plan_text};
use rig::JsonSchema;
use schemas::hcl::{Declared, Excerpt, Place};
use schemas::id::Workspace;
use schemas::spec::MigrationSpec;
use schemas::time::UtcTime;
use serde_json::{Map, Value, json};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plan")
}

fn read(path: &Path) -> Value {
    let text =
        fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Lays `patch` over `base`: objects member by member, everything else as it is.
fn over(base: &Value, patch: &Value) -> Value {
    match (base, patch) {
        (Value::Object(base), Value::Object(patch)) => {
            let mut all = base.clone();
            for (key, value) in patch {
                let laid = over(base.get(key).unwrap_or(&Value::Null), value);
                all.insert(key.clone(), laid);
            }
            Value::Object(all)
        }
        _ => patch.clone(),
    }
}

/// The members of a case by migration, each laid over the base.
fn members(case: &Value, base: &Value, member: &str) -> Map<String, Value> {
    let empty = Map::new();
    let all = case.get(member).and_then(Value::as_object).unwrap_or(&empty);
    all.iter().map(|(name, patch)| (name.clone(), over(&base[member], patch))).collect()
}

fn from<T: serde::de::DeserializeOwned>(case: &str, value: Value) -> T {
    serde_json::from_value(value.clone())
        .unwrap_or_else(|error| panic!("{case}: {error} in {value:#}"))
}

/// Where an attribute would be in a file of one attribute a line.
fn place(name: &str, line: usize, text: &str) -> Place {
    let excerpt = Excerpt { text: text.to_owned(), start: 0, end: text.chars().count() };
    Place { file: format!("{name}.hcl"), line, column: 1, excerpt }
}

fn declared(case: &str, json: Map<String, Value>, sensitive: &[String]) -> Declaration {
    let migrations = json
        .into_iter()
        .map(|(name, mut value)| {
            value["name"] = json!(name);
            let spec: MigrationSpec = from(case, value);
            let paths = [
                "generation",
                "source.uri",
                "namespaces.include",
                "verify.mode",
                "cutover.extensions",
                "cutover.acknowledge",
            ];
            let places = paths
                .iter()
                .enumerate()
                .map(|(at, path)| ((*path).to_owned(), place(&name, at + 2, path)))
                .collect();
            let place = place(&name, 1, &format!("migration \"{name}\" {{"));
            (spec.name.clone(), Declared { spec, place, places, sensitive: sensitive.to_vec() })
        })
        .collect();
    Declaration {
        workspace: Workspace::new("payments").expect("a workspace"),
        reach: Reach::default(),
        migrations,
        fingerprint: "5f1c".to_owned(),
        warnings: Vec::new(),
    }
}

fn made(name: &str, base: &Value) -> (Plan, Folded) {
    let case = read(&folder().join(name).join("case.json"));
    let sensitive: Vec<String> =
        case.get("sensitive").map(|list| from(name, list.clone())).unwrap_or_default();
    let declared = declared(name, members(&case, base, "declared"), &sensitive);
    let observed: Vec<_> = members(&case, base, "observed")
        .into_iter()
        .map(|(migration, mut value)| {
            value["spec"]["name"] = json!(migration);
            value["status"]["name"] = json!(migration);
            from(name, value)
        })
        .collect();
    let inspections: BTreeMap<_, _> =
        from(name, Value::Object(members(&case, base, "inspections")));
    let now: UtcTime = base["now"].as_str().expect("a time").parse().expect("a time");
    let first = plan(&declared, &observed, &inspections, now);
    let mut turned = observed;
    turned.reverse();
    let again = plan(&declared, &turned, &inspections, now);
    assert_eq!(
        pretty(&first),
        pretty(&again),
        "{name}: the order of what the daemon says must not matter"
    );
    let folded = Folded::count(&first, declared.specs());
    (first, folded)
}

#[test]
fn plans_are_as_they_were() {
    let base = read(&folder().join("base.json"));
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut names: Vec<String> = fs::read_dir(folder())
        .expect("the cases")
        .map(|entry| entry.expect("an entry"))
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    assert!(names.len() >= 20, "only {} cases", names.len());
    let mut different = Vec::new();
    let schema = schema();
    for name in names {
        let (plan, folded) = made(&name, &base);
        let json = pretty(&plan);
        assert_eq!(serde_json::from_str::<Plan>(&json).expect("its own JSON"), plan, "{name}");
        check(&schema, &name, &read_text(&json));
        let text = format!(
            "{}{}",
            plan_text::plan(&plan, &folded, Paint::PLAIN),
            diagnostics::all(&plan.diagnostics, Paint::PLAIN)
        );
        for (file, actual) in
            [("plan.txt", text), ("plan.json", json), ("plan.md", markdown::plan(&plan, &folded))]
        {
            let path = folder().join(&name).join(file);
            if update {
                fs::write(&path, &actual).expect("a golden file");
            } else if fs::read_to_string(&path).ok().as_deref() != Some(&actual) {
                different.push(format!("{}:\n{actual}", path.display()));
            }
        }
    }
    assert!(different.is_empty(), "UPDATE_GOLDEN=1 accepts:\n{}", different.join("\n"));
}

fn read_text(json: &str) -> Value {
    serde_json::from_str(json).expect("JSON")
}

fn schema() -> JsonSchema {
    JsonSchema::published("plan").expect("a schema")
}

fn check(schema: &JsonSchema, name: &str, plan: &Value) {
    schema.accepts(plan).unwrap_or_else(|error| panic!("{name}: {error}"));
}

#[test]
fn the_published_schema_is_that_of_plans() {
    let schema = schema();
    let base = read(&folder().join("base.json"));
    let good = read_text(&pretty(&made("create_failed_checks", &base).0));
    check(&schema, "a plan", &good);
    check(
        &schema,
        "a plan that could not be made",
        &read_text(&pretty(&Plan::unmade("5f1c".to_owned(), Vec::new()))),
    );
    // It refuses what is no plan: a schema that takes everything would prove nothing.
    for (pointer, value) in [
        ("/format_version", json!(2)),
        ("/changes/0/action", json!("explode")),
        ("/changes/0/migration", json!("or ders")),
        ("/changes/0/serial", json!(-1)),
        ("/changes/0/forecast/shards", json!(null)),
        ("/diagnostics/0/code", json!("E1")),
        ("/diagnostics/0/severity", json!("fatal")),
    ] {
        let mut bad = good.clone();
        *bad.pointer_mut(pointer).unwrap_or_else(|| panic!("{pointer} is not there")) = value;
        assert!(schema.accepts(&bad).is_err(), "{pointer}");
    }
    let mut more = good.clone();
    more["surprise"] = json!(1);
    assert!(schema.accepts(&more).is_err());
    // Every word that a plan can say.
    let words = |pointer: &str| schema.document().pointer(pointer).expect("an enumeration").clone();
    assert_eq!(
        words("/$defs/change/properties/action/enum"),
        json!(Action::ALL.map(Action::as_str))
    );
    assert_eq!(
        words("/$defs/drift/properties/kind/enum"),
        json!(DriftKind::ALL.map(DriftKind::as_str))
    );
}

#[test]
fn colour_changes_no_words() {
    let base = read(&folder().join("base.json"));
    for name in ["create", "update", "cut_over", "drift_paused"] {
        let (plan, folded) = made(name, &base);
        let mut coloured = plan_text::plan(&plan, &folded, Paint::new(true));
        assert!(coloured.contains('\u{1b}'), "{name}");
        while let Some(start) = coloured.find('\u{1b}') {
            let end = coloured[start..].find('m').expect("the end of an escape") + start;
            coloured.replace_range(start..=end, "");
        }
        assert_eq!(coloured, plan_text::plan(&plan, &folded, Paint::PLAIN), "{name}");
    }
}
