//! Expressions give what Terraform 1.11.4's own console gives for them: `console.txt` holds its
//! answers, as jsonencode writes them.

use hcl_edit::parser::parse_body;

use super::super::eval::{Evaluator, Known, Names};
use super::super::value::Value;

/// The local values of the folder that the console was started in.
const LOCALS: &str =
    r#"{"xs": ["1", "2"], "hosts": [{"name": "a", "port": 1}, {"name": "b", "port": 2}]}"#;

/// What an expression gives here; `None`: an error.
fn here(expr: &str) -> Option<serde_json::Value> {
    let text = format!("x = {expr}\n");
    let body = parse_body(&text).ok()?;
    let mut names = Names::new("/etc/cutover".into(), true);
    let locals: std::collections::BTreeMap<String, serde_json::Value> =
        serde_json::from_str(LOCALS).expect("JSON");
    names.locals = locals
        .into_iter()
        .map(|(name, value)| (name, Known::Value { value: Value::from(value), sensitive: false }))
        .collect();
    let value =
        Evaluator::new(&names, &text).value(&body.get_attribute("x").expect("x").value).ok()?;
    Some((&value).into())
}

/// The same with every number as the nearest f64: Terraform's have more digits than 64 bits hold,
/// and 3 and 3.0 are one value.
fn plain(value: serde_json::Value) -> serde_json::Value {
    use serde_json::Value as Json;
    match value {
        Json::Number(number) => number.as_f64().into(),
        Json::Array(items) => items.into_iter().map(plain).collect(),
        Json::Object(entries) => {
            entries.into_iter().map(|(key, value)| (key, plain(value))).collect()
        }
        other => other,
    }
}

#[test]
fn expressions_give_what_the_console_gives() {
    let lines: Vec<&str> = include_str!("console.txt").lines().collect();
    let mut count = 0;
    let mut wrong = Vec::new();
    for pair in lines.chunks(2) {
        let [expr, expected] = pair else { panic!("half a case: {pair:?}") };
        let expr = expr.strip_prefix("> ").expect("an expression");
        let expected: Option<serde_json::Value> =
            (*expected != "error").then(|| serde_json::from_str(expected).expect("JSON"));
        let found = here(expr);
        let (found, expected) = (found.map(plain), expected.map(plain));
        count += 1;
        if found != expected {
            wrong.push(format!("{expr}\n  console: {expected:?}\n  here:    {found:?}"));
        }
    }
    assert!(count > 150, "only {count} cases");
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
}
