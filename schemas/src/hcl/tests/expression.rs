//! Expressions give what Terraform 1.11.4 gives for the same text, where both have them.

use std::collections::BTreeMap;

use hcl_edit::parser::parse_body;

use super::super::eval::{Evaluator, Failure, Known, Names};
use super::super::value::Value;

fn names() -> Names {
    let mut names = Names::new("/etc/cutover".into(), true);
    let list = vec![Value::from("1"), Value::from("2")];
    names.locals.insert("xs".into(), Known::Value { value: list.into(), sensitive: false });
    names.variables.insert("secret".into(), Known::Value { value: "x".into(), sensitive: true });
    names
}

/// The value as JSON, and whether it is sensitive.
fn evaluated(expr: &str) -> Result<(serde_json::Value, bool), String> {
    let text = format!("x = {expr}\n");
    let body = parse_body(&text).map_err(|error| format!("{expr}: {error}"))?;
    let names = names();
    let evaluator = Evaluator::new(&names, &text);
    match evaluator.value(&body.get_attribute("x").expect("x").value) {
        Ok(value) => Ok(((&value).into(), evaluator.is_sensitive())),
        Err(Failure::At(wrong)) => Err(wrong.summary),
        Err(Failure::Reported) => Err("reported".into()),
    }
}

fn assert_gives(cases: &[(&str, &str)]) {
    for (expr, expected) in cases {
        let expected: serde_json::Value = serde_json::from_str(expected).expect("JSON");
        assert_eq!(evaluated(expr).map(|(value, _)| value), Ok(expected), "{expr}");
    }
}

#[test]
fn operators_and_numbers() {
    assert_gives(&[
        ("1 + 2 * 3", "7"),
        ("(1 + 2) * 3", "9"),
        ("10 / 4", "2.5"),
        ("7 % 3", "1"),
        ("-7 % 3", "-1"),
        ("9 / 3", "3"),
        ("-(2)", "-2"),
        ("\"5\" + 1", "6"),
        ("9223372036854775807 + 1", "9223372036854775808"),
        ("1 == 1.0", "true"),
        ("1 == \"1\"", "false"),
        ("[1, {a = null}] == [1, {a = null}]", "true"),
        ("2 > 1 && 1 >= 1 || false", "true"),
        ("!true", "false"),
        ("false && nope", "false"),
        ("true || nope", "true"),
        ("true ? \"a\" : nope", "\"a\""),
        (
            "\"${1.0} ${1e20} ${1e21} ${0.1}\"",
            "\"1 100000000000000000000 1000000000000000000000 0.1\"",
        ),
        ("null", "null"),
    ]);
    assert_eq!(evaluated("nope"), Err("unknown name \"nope\"".into()));
}

#[test]
fn for_splat_and_index() {
    assert_gives(&[
        ("[for x in local.xs : \"n${x}\"]", r#"["n1","n2"]"#),
        ("[for i, x in [\"a\", \"b\"] : \"${i}${x}\" if i > 0]", r#"["1b"]"#),
        ("{for k, v in {b = 1, a = 2} : upper(k) => v}", r#"{"A":2,"B":1}"#),
        ("{for x in [\"a\", \"ab\"] : substr(x, 0, 1) => x...}", r#"{"a":["a","ab"]}"#),
        ("[for x in [1, 2] : [for y in [x] : x + y]]", "[[2],[4]]"),
        ("[{a = 1}, {a = 2}][*].a", "[1,2]"),
        ("[{a = [1]}, {a = [2]}].*.a", "[[1],[2]]"),
        ("{a = 1}[*].a", "[1]"),
        ("null[*]", "[]"),
        ("{a = {b = [1, 2]}}.a.b[1]", "2"),
        ("{\"a b\" = 1}[\"a b\"]", "1"),
        ("{(\"a\") = 1, \"b\" : 2}", r#"{"a":1,"b":2}"#),
        ("max([1, 5, 2]...)", "5"),
    ]);
}

#[test]
fn heredocs_keep_and_drop_space_as_terraform_does() {
    assert_gives(&[
        (
            "<<-EOT\n    A\n    %{ for x in local.xs ~}\n      item ${x}\n    %{ endfor ~}\n    \
             tail\n  EOT",
            r#""A\n      item 1\n      item 2\n    tail\n""#,
        ),
        (
            "<<EOT\n    A\n    %{ for x in local.xs ~}\n      item ${x}\n    %{ endfor ~}\n    \
             tail\nEOT",
            r#""    A\n          item 1\n          item 2\n        tail\n""#,
        ),
        (
            "<<-EOT\n      A\n        B ${\"x\"}\n      ${\"y\"} z\n\n    C\n      EOT",
            r#""  A\n    B x\n  y z\n\nC\n""#,
        ),
        (
            "<<-EOT\n\t    tab\n\t  tab2 ${~ \"x\" }\n\t    ${\"multi\"}   \n    EOT",
            r#""  tab\ntab2x\n  multi   \n""#,
        ),
        ("<<EOT\na\\nb \"q\" $${x} %%{y}\nEOT", r#""a\\nb \"q\" ${x} %{y}\n""#),
        (
            "\"a   ${~ \"b\" ~}   c %{ if true ~}  x  %{~ endif } \\n  ${~ \"b\" ~}  \\n c\"",
            r#""abc xbc""#,
        ),
        ("\"%{ if false }a%{ else }b%{ endif }\"", "\"b\""),
        ("\"${[1]}\"", "[1]"),
        ("<<EOT\nEOT", "\"\""),
    ]);
}

#[test]
fn functions_of_texts() {
    assert_gives(&[
        (
            r#"format("%5.2f|%-5s|%05d|%v|%q|%t|%x|%s", 1.234, "ab", 42, {a=1}, "q", true,
                255, 1.5)"#,
            r#"" 1.23|ab   |00042|{\"a\":1}|\"q\"|true|ff|1.5""#,
        ),
        (r#"format("%+d %e %g %%", 5, 12345.678, 0.5)"#, r#""+5 1.234568e+04 0.5 %""#),
        (r#"formatlist("%s-%s", ["a", "b"], "c")"#, r#"["a-c","b-c"]"#),
        (r#"join(",", [1, true])"#, r#""1,true""#),
        (r#"split(",", "")"#, r#"[""]"#),
        (r#"split("", "ab")"#, r#"["a","b"]"#),
        (r#"substr("hello", -3, -1)"#, r#""llo""#),
        (r#"title("hello world")"#, r#""Hello World""#),
        (r#"trim("?!x?", "!?")"#, r#""x""#),
        (r#"indent(2, "a\nb")"#, r#""a\n  b""#),
        (r#"regex("a(b)", "ab")"#, r#"["b"]"#),
        (r#"regex("(?P<x>b)", "ab")"#, r#"{"x":"b"}"#),
        (r#"regex("b", "ab")"#, r#""b""#),
        (r#"regexall("b", "abb")"#, r#"["b","b"]"#),
        (r#"replace("a/b", "/", "-")"#, r#""a-b""#),
        (r#"replace("aXb", "/[A-Z]/", "-")"#, r#""a-b""#),
        (r#"replace("ab", "/(a)(b)/", "$2$1")"#, r#""ba""#),
        (r#"strrev("abc")"#, r#""cba""#),
        (r#"urlencode("a b/ä~*")"#, r#""a+b%2F%C3%A4~%2A""#),
        (r#"upper("ä")"#, r#""Ä""#),
        (r#"trimspace(" x\n")"#, r#""x""#),
        (r#"chomp("a\n\n")"#, r#""a""#),
        (r#"trimprefix("ab", "a")"#, r#""b""#),
        (r#"trimsuffix("ab", "b")"#, r#""a""#),
        (
            r#"[startswith("ab", "a"), endswith("ab", "a"), strcontains("ab", "b")]"#,
            "[true,false,true]",
        ),
        (r#"sha256("x")"#, r#""2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881""#),
    ]);
}

#[test]
fn functions_of_lists_and_objects() {
    assert_gives(&[
        (r#"element(["a", "b"], 3)"#, r#""b""#),
        (r#"sort(["b", "a"])"#, r#"["a","b"]"#),
        ("sum([1, 2.5])", "3.5"),
        (r#"index(["a", "b"], "b")"#, "1"),
        (r#"slice(["a", "b", "c"], 1, 2)"#, r#"["b"]"#),
        (r#"chunklist(["a", "b", "c"], 2)"#, r#"[["a","b"],["c"]]"#),
        (r#"zipmap(["a"], [1])"#, r#"{"a":1}"#),
        (r#"lookup({a = 1}, "b", 0)"#, "0"),
        (r#"coalesce("", "x")"#, r#""x""#),
        (r#"coalescelist([], ["x"])"#, r#"["x"]"#),
        (r#"compact(["a", "", null])"#, r#"["a"]"#),
        ("flatten([1, [2, [3]]])", "[1,2,3]"),
        ("distinct([1, 1])", "[1]"),
        ("range(3)", "[0,1,2]"),
        ("range(1, 8, 3)", "[1,4,7]"),
        ("range(3, 0)", "[3,2,1]"),
        ("reverse([1, 2])", "[2,1]"),
        ("one([])", "null"),
        (r#"transpose({a = ["x"]})"#, r#"{"x":["a"]}"#),
        ("keys({b = 1, a = 2})", r#"["a","b"]"#),
        ("values({b = 1, a = 2})", "[2,1]"),
        ("merge({a = 1}, {a = 2, b = 3})", r#"{"a":2,"b":3}"#),
        (r#"matchkeys(["x", "y"], ["a", "b"], ["b"])"#, r#"["y"]"#),
        ("[alltrue([]), anytrue([])]", "[true,false]"),
        (r#"contains(["a"], "a")"#, "true"),
        (r#"[length("äx"), length({a = 1}), length([1])]"#, "[2,1,1]"),
        ("concat([1], [2])", "[1,2]"),
        (r#"setintersection(["a", "b"], ["b"])"#, r#"["b"]"#),
        (r#"setunion(["b"], ["a"])"#, r#"["a","b"]"#),
        (r#"setsubtract(["a", "b"], ["a"])"#, r#"["b"]"#),
        (r#"toset(["b", "a", "b"])"#, r#"["a","b"]"#),
    ]);
}

#[test]
fn functions_of_numbers_and_conversions() {
    assert_gives(&[
        (r#"parseint("ff", 16)"#, "255"),
        (
            "[signum(-2), pow(2, 3), floor(1.5), ceil(1.5), abs(-1), log(8, 2), max(1, 2), min(1, \
             2)]",
            "[-1,8,1,2,1,3,2,1]",
        ),
        (
            r#"[tonumber("1.5"), tostring(1), tobool("true"), tostring(null)]"#,
            r#"[1.5,"1",true,null]"#,
        ),
        (
            r#"jsonencode({b = "<a>", a = [1, null, 1.5]})"#,
            r#""{\"a\":[1,null,1.5],\"b\":\"\\u003ca\\u003e\"}""#,
        ),
        (r#"jsondecode("{\"a\":[1,2.5]}")"#, r#"{"a":[1,2.5]}"#),
        (r#"try(tostring(["a"]), "no")"#, r#""no""#),
        (r#"[can(tonumber("x")), can(1)]"#, "[false,true]"),
        (
            r#"[basename("/a/b"), dirname("/a/b"), abspath("c"), path.module]"#,
            r#"["b","/a","/etc/cutover/c","/etc/cutover"]"#,
        ),
    ]);
}

#[test]
fn sensitivity_follows_values() {
    let sensitive = |expr: &str| evaluated(expr).expect(expr).1;
    assert!(sensitive("var.secret"));
    assert!(sensitive("[for x in [1] : \"${x}${var.secret}\"]"));
    assert!(sensitive("length(var.secret)"));
    assert!(!sensitive("true ? 1 : var.secret"));
    assert!(!sensitive("local.xs"));
}

#[test]
fn files_are_read_relative_to_the_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("list.tpl"), "%{ for x in xs ~}\n${x}\n%{ endfor ~}\n")
        .expect("written");
    std::fs::write(folder.path().join("plain.txt"), "ä\n").expect("written");
    let text = "x = [templatefile(\"list.tpl\", { xs = [1, 2] }), file(\"plain.txt\"), \
         fileexists(\"plain.txt\"), fileexists(\"no\")]\n";
    let body = parse_body(text).expect("it parses");
    let names = Names::new(folder.path().to_owned(), true);
    let value = Evaluator::new(&names, text)
        .value(&body.get_attribute("x").expect("x").value)
        .map_err(|_| ())
        .expect("a value");
    assert_eq!(serde_json::Value::from(&value), serde_json::json!(["1\n2\n", "ä\n", true, false]));
}

#[test]
fn every_function_has_a_signature_of_its_name() {
    for function in crate::hcl::function::all() {
        assert!(
            function.signature.starts_with(&format!("{}(", function.name())),
            "{}",
            function.signature
        );
    }
    let names: BTreeMap<_, _> =
        crate::hcl::function::all().map(|function| (function.name(), ())).collect();
    assert_eq!(names.len(), crate::hcl::function::all().count(), "two functions of one name");
}
