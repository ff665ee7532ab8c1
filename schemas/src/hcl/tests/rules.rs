//! What declarations come to: defaults, precedence, tables against types, warnings.

use std::collections::BTreeMap;

use super::super::schema::{AttributeSchema, BlockSchema, DAEMON, Kind, MIGRATION, Times};
use super::super::{DEFAULT_VERIFY_MODE, Severity};
use super::*;
use crate::fault::FaultCode;
use crate::spec::{
    Balancer, CopySpec, CutoverSpec, ExistingData, IndexBuild, MigrationSpec, SecretRef,
    SourceAfter, SourceWrites, VerifyMode,
};

fn declared(text: &str) -> Declaration {
    load_text(text, &Inputs::default()).unwrap_or_else(|diagnostics| panic!("{diagnostics}"))
}

fn spec(body: &str) -> MigrationSpec {
    declared(&migration(body)).migrations.into_values().next().expect("one").spec
}

fn first_error(text: &str) -> (FaultCode, String) {
    let diagnostics = load_text(text, &Inputs::default()).expect_err(text);
    let first = diagnostics.iter().next().expect("at least one");
    (first.code, first.summary.clone())
}

/// Every attribute of a migration with its path.
fn attributes(
    block: &'static BlockSchema,
    path: &str,
    found: &mut Vec<(String, &'static AttributeSchema)>,
) {
    found.extend(
        block.attributes.iter().map(|attribute| (format!("{path}{}", attribute.name), attribute)),
    );
    for inner in block.blocks {
        attributes(inner, &format!("{path}{}.", inner.name), found);
    }
}

#[test]
fn absent_settings_have_the_specs_defaults() {
    let spec = spec("");
    assert_eq!(spec.copy, CopySpec::default());
    assert_eq!(spec.cutover, CutoverSpec::default());
    assert_eq!(spec.verify.mode, DEFAULT_VERIFY_MODE);
    assert_eq!(spec.generation.0, 1);
    assert!(!spec.paused);
    assert_eq!(
        (spec.source.connection.tls, spec.sharding, spec.destination.block_writes),
        (None, None, None)
    );
}

#[test]
fn defaults_of_the_table_are_those_of_the_spec() {
    // Each default written out must make the same spec as leaving it out.
    let plain = spec("");
    let written = |block: &BlockSchema| -> String {
        let lines = block
            .attributes
            .iter()
            .filter_map(|a| a.default.map(|default| format!("{} = {default}\n", a.name)));
        lines.collect()
    };
    let mut body = written(&MIGRATION);
    for block in MIGRATION
        .blocks
        .iter()
        .filter(|block| block.times == Times::AtMostOnce && block.name != "sharding")
    {
        body.push_str(&format!("{} {{\n{}}}\n", block.name, written(block)));
    }
    assert_eq!(spec(&body), plain);
    assert_eq!(
        DAEMON.attribute("endpoint").and_then(|a| a.default),
        Some(format!("{:?}", crate::wire::DEFAULT_ENDPOINT).as_str())
    );
}

#[test]
fn null_is_as_if_left_out() {
    let mut found = Vec::new();
    attributes(&MIGRATION, "", &mut found);
    let mut body = String::from("generation = null\npaused = null\n");
    for block in MIGRATION
        .blocks
        .iter()
        .filter(|block| block.times == Times::AtMostOnce && block.name != "sharding")
    {
        let lines: String = block
            .attributes
            .iter()
            .map(|attribute| format!("{} = null\n", attribute.name))
            .collect();
        body.push_str(&format!("{} {{\n{lines}}}\n", block.name));
    }
    assert_eq!(spec(&body), spec(""));
    assert!(found.len() > 25, "the table lost attributes");
}

#[test]
fn choices_are_what_the_spec_reads() {
    fn all_read<T: serde::de::DeserializeOwned>(block: &str, attribute: &str) -> usize {
        let schema =
            MIGRATION.block(block).and_then(|block| block.attribute(attribute)).expect(attribute);
        let Kind::Choice(choices) = schema.kind else { panic!("{attribute} is no choice") };
        for choice in choices {
            serde_json::from_value::<T>((*choice).into())
                .unwrap_or_else(|error| panic!("{choice}: {error}"));
        }
        choices.len()
    }
    let counts = [
        all_read::<ExistingData>("destination", "existing_data"),
        all_read::<IndexBuild>("copy", "indexes"),
        all_read::<Balancer>("sharding", "balancer"),
        all_read::<VerifyMode>("verify", "mode"),
        all_read::<SourceWrites>("cutover", "source_writes"),
        all_read::<SourceAfter>("cutover", "source_after"),
    ];
    assert_eq!(counts, [2; 6]);
}

#[test]
fn the_tables_have_no_doubles_and_say_what_each_thing_is() {
    fn check(block: &BlockSchema) {
        let mut names: Vec<_> = block.names().collect();
        names.sort_unstable();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all, "{} has a name twice", block.name);
        assert!(block.description.ends_with('.'), "{}", block.name);
        for attribute in block.attributes {
            assert!(attribute.description.ends_with('.'), "{}.{}", block.name, attribute.name);
            assert!(
                !(attribute.required && attribute.default.is_some()),
                "{}.{}",
                block.name,
                attribute.name
            );
        }
        block.blocks.iter().for_each(check);
    }
    crate::hcl::schema::TOP.into_iter().for_each(check);
}

#[test]
fn values_are_taken_from_the_strongest_source() {
    let folder = tempfile::tempdir().expect("a folder");
    let write =
        |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("written");
    let body = "cutover {\n window = var.w\n}";
    write("main.hcl", &format!("variable \"w\" {{\n default = \"1h\"\n}}\n{}", migration(body)));
    let window = |inputs: &Inputs| -> String {
        let declaration =
            load(folder.path(), inputs).unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
        declaration.migrations.values().next().expect("one").spec.cutover.window.to_string()
    };
    let mut inputs = Inputs::default();
    assert_eq!(window(&inputs), "1h");
    inputs.env = BTreeMap::from([
        ("CUTOVER_VAR_w".to_owned(), "2h".to_owned()),
        ("CUTOVER_VAR_other".to_owned(), "x".to_owned()),
    ]);
    assert_eq!(window(&inputs), "2h");
    write("b.auto.hclvars", "w = \"3h\"\n");
    assert_eq!(window(&inputs), "3h");
    write("c.auto.hclvars", "w = \"4h\"\n");
    assert_eq!(window(&inputs), "4h");
    write("given.hclvars", "w = format(\"%dh\", 5)\n");
    inputs.var_files = vec![folder.path().join("given.hclvars")];
    assert_eq!(window(&inputs), "5h");
    inputs.vars = vec![("w".to_owned(), "6h".to_owned()), ("w".to_owned(), "7h".to_owned())];
    assert_eq!(window(&inputs), "7h");
}

#[test]
fn hidden_files_and_folders_are_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let write =
        |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("written");
    write("main.hcl", &migration(""));
    write(".#main.hcl", "junk {");
    write("#main.hcl#", "junk {");
    write("main.hcl~", "junk {");
    write("main.hcl.swp", "junk {");
    std::fs::create_dir(folder.path().join("modules.hcl")).expect("made");
    assert_eq!(load(folder.path(), &Inputs::default()).expect("good").migrations.len(), 1);
}

#[test]
fn files_are_absolute_and_links_stay() {
    let spec = declared(
        "migration \"orders\" {\n source {\n uri = \"mongodb://a\"\n username = \"u\"\n password = \
         { file = \"./s/../p\" }\n tls {\n ca_file = \"certs/ca.pem\"\n certificate_key_file = \
         \"/k.pem\"\n }\n }\n destination {\n uri = \"mongodb://b\"\n }\n}\n",
    )
    .migrations
    .into_values()
    .next()
    .expect("one")
    .spec;
    let connection = spec.source.connection;
    assert_eq!(connection.password, Some(SecretRef::File("/etc/cutover/s/../p".into())));
    let tls = connection.tls.expect("a tls block");
    assert_eq!(tls.ca_file, Some("/etc/cutover/certs/ca.pem".into()));
    assert_eq!(tls.certificate_key_file, Some("/k.pem".into()));
}

#[test]
fn endpoints_are_absolute() {
    for (written, expected) in [
        ("unix:///run/a.sock", "unix:///run/a.sock"),
        ("unix:/run/a.sock", "unix:///run/a.sock"),
        ("unix:a.sock", "unix:///etc/cutover/a.sock"),
    ] {
        let text = format!("daemon {{\n endpoint = {written:?}\n workspace = \"w\"\n}}\n");
        let daemon = declared(&text).daemon;
        assert_eq!(daemon.endpoint.as_deref(), Some(expected));
        assert_eq!(daemon.workspace.as_str(), "w");
    }
}

#[test]
fn tokens_lose_their_white_space() {
    assert_eq!(
        spec("cutover {\n acknowledge = \" abc\\n\"\n}").cutover.acknowledge.as_deref(),
        Some("abc")
    );
    assert_eq!(spec("cutover {\n acknowledge = \"\"\n}").cutover.acknowledge, None);
}

#[test]
fn computed_texts_pass_for_numbers_and_bools() {
    let text = format!(
        "variable \"n\" {{}}\nvariable \"p\" {{}}\n{}",
        migration("generation = var.n\npaused = var.p")
    );
    let inputs = Inputs {
        vars: vec![("n".into(), "3".into()), ("p".into(), "true".into())],
        ..Inputs::default()
    };
    let declaration =
        load_text(&text, &inputs).unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
    let spec = &declaration.migrations.values().next().expect("one").spec;
    assert_eq!((spec.generation.0, spec.paused), (3, true));
}

#[test]
fn places_lead_to_what_is_written() {
    let declaration = declared(&migration("cutover {\n window = \"1h\"\n acknowledge = \"x\"\n}"));
    let declared = declaration.migrations.values().next().expect("one");
    assert_eq!(declared.place_of("cutover.acknowledge").line, 10);
    assert_eq!(declared.place_of("cutover.acknowledge").excerpt.text, " acknowledge = \"x\"");
    assert_eq!(declared.place_of("cutover.max_lag").line, 8);
    assert_eq!(declared.place_of("verify.mode").line, 1);
    assert_eq!(declared.place_of("source.uri").line, 3);
}

#[test]
fn sensitive_settings_are_named() {
    let text = format!(
        "variable \"w\" {{\n sensitive = true\n default = \"1h\"\n}}\nlocals {{\n l = \
         \"${{var.w}}\"\n}}\n{}",
        migration("cutover {\n window = local.l\n}")
    );
    assert_eq!(
        declared(&text).migrations.values().next().expect("one").sensitive,
        ["cutover.window"]
    );
}

#[test]
fn warnings_do_not_stop_it() {
    let text = "migration \"orders\" {\n paused = true\n source {\n uri = \
         \"mongodb://a/?tlsInsecure=true\"\n}\ndestination {\n uri = \"mongodb://b\"\n}\n \
         namespaces {\n \
                include = [\"admin.*\", \"shop.*\"]\n}\n cutover {\n acknowledge = \"x\"\n}\n}\n";
    let warnings = declared(text).warnings;
    assert_eq!(warnings.len(), 3, "{warnings}");
    assert!(warnings.iter().all(|warning| warning.severity == Severity::Warning));
}

#[test]
fn certificates_of_any_host_are_not_to_be_had() {
    let with = |value: &str| {
        migration("")
            .replace("mongodb://b", &format!("mongodb://b/?tlsAllowInvalidHostnames={value}"))
    };
    let (code, summary) = first_error(&with("true"));
    assert_eq!(code, FaultCode::InvalidConfiguration);
    assert!(summary.contains("tlsAllowInvalidHostnames is not supported"), "{summary}");
    // What it says is so without it.
    assert!(
        declared(&with("false"))
            .warnings
            .render(false)
            .contains("tlsAllowInvalidHostnames has no effect")
    );
}

#[test]
fn same_deployments_have_their_own_code() {
    let text = migration("").replace("mongodb://b", "mongodb://A:27017/?replicaSet=y");
    assert_eq!(first_error(&text).0, FaultCode::SameDeployment);
}

#[test]
fn every_setting_is_taken() {
    for body in [
        "copy {\n indexes = \"before_copy\"\n}",
        "namespaces {\n include_users = true\n}",
        "copy {\n rate_limit = \"1MB/s\"\n indexes = \"after_copy\"\n parallelism = 256\n}",
        "verify {\n mode = \"off\"\n}",
        "verify {\n mode = \"full\"\n}",
        "verify {\n}",
    ] {
        spec(body);
    }
}

#[test]
fn a_user_without_a_password_logs_on_by_certificate_alone() {
    let certificate = "\n tls {\n certificate_key_file = \"k.pem\"\n }";
    let by =
        |uri: &str, more: &str| migration("").replace("\"mongodb://a\"", &format!("{uri:?}{more}"));
    declared(&by("mongodb://u@a/?authMechanism=MONGODB-X509", certificate));
    declared(&by("mongodb://a/?authMechanism=MONGODB-X509", certificate));
    for (uri, more) in [
        ("mongodb://u@a/?authMechanism=MONGODB-X509", ""),
        ("mongodb://u@a/?authMechanism=GSSAPI", certificate),
        ("mongodb://u@a", certificate),
    ] {
        assert_eq!(first_error(&by(uri, more)).0, FaultCode::InvalidConfiguration, "{uri}");
    }
}

#[test]
fn diagnostics_go_through_json() {
    let diagnostics =
        load_text("migration \"a\" \"b\" {\n}\n", &Inputs::default()).expect_err("bad");
    let json = serde_json::to_string(&diagnostics).expect("JSON");
    assert_eq!(serde_json::from_str::<Diagnostics>(&json).expect("its own JSON"), diagnostics);
}

#[test]
fn colour_only_where_it_is_asked_for() {
    let diagnostics = load_text("junk {\n}\n", &Inputs::default()).expect_err("bad");
    assert!(!diagnostics.render(false).contains('\u{1b}'));
    assert!(diagnostics.render(true).contains("\u{1b}[1m\u{1b}[31mError"));
}

#[test]
fn a_shard_key_of_what_is_not_carried_is_told() {
    let body = "namespaces {\n include = [\"crm.*\"]\n}\n sharding {\n collection \"shop.orders\" \
         {\n key = [\"customer.id:1\", \"_id:hashed\"]\n}\n}";
    let declaration = declared(&migration(body));
    let told: Vec<&str> =
        declaration.warnings.iter().map(|warning| warning.summary.as_str()).collect();
    assert_eq!(told, ["\"shop.orders\" is not in scope"]);
    let spec = &declaration.migrations.values().next().expect("one").spec;
    let collections = &spec.sharding.as_ref().expect("a block").collections;
    assert_eq!(collections[0].in_words(), "{customer.id: 1, _id: hashed}");
    assert_eq!(
        collections[0].fields().collect::<Vec<_>>(),
        [("customer.id", false), ("_id", true)]
    );
}
