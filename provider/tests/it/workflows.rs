//! The example workflows are YAML, and every command of ours in them is one that the command line
//! takes.

use std::fs;
use std::path::Path;

use clap::Parser as _;
use provider::cli::Cli;
use saphyr::{LoadableYamlNode as _, Yaml};

/// Every text in a document.
fn texts(node: &Yaml<'_>, found: &mut Vec<String>) {
    if let Some(text) = node.as_str() {
        found.push(text.to_owned());
    } else if let Some(items) = node.as_sequence() {
        items.iter().for_each(|item| texts(item, found));
    } else if let Some(entries) = node.as_mapping() {
        entries.values().for_each(|value| texts(value, found));
    }
}

/// The commands of ours in a script, as words; redirections and what follows a command are left
/// out.
fn commands(script: &str) -> Vec<Vec<String>> {
    let ours = script.lines().map(str::trim).filter(|line| line.starts_with("cutover "));
    ours.map(|line| {
        let end = [" > ", " || ", " | ", " && ", "; "]
            .iter()
            .filter_map(|sign| line.find(sign))
            .min()
            .unwrap_or(line.len());
        line[..end]
            .split_whitespace()
            .map(|word| word.trim_matches(['"', '\'']).to_owned())
            .collect()
    })
    .collect()
}

#[test]
fn workflows_are_yaml_and_their_commands_exist() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    for (file, wanted) in [
        ("github-actions/cutover.yml", &["fmt", "plan", "apply", "drift", "status"][..]),
        ("gitlab-ci/.gitlab-ci.yml", &["fmt", "plan", "apply", "drift", "status"]),
    ] {
        let text = fs::read_to_string(examples.join(file)).expect("an example");
        let documents =
            Yaml::load_from_str(&text).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert_eq!(documents.len(), 1, "{file}");
        let mut found = Vec::new();
        texts(&documents[0], &mut found);
        let commands: Vec<Vec<String>> = found.iter().flat_map(|script| commands(script)).collect();
        for command in &commands {
            if let Err(error) = Cli::try_parse_from(command) {
                panic!("{file}: {command:?}: {error}");
            }
        }
        for name in wanted {
            assert!(
                commands.iter().any(|command| command[1] == *name),
                "{file} never runs cutover {name}: {commands:?}"
            );
        }
    }
    // A command that does not exist, or a flag, is found.
    assert!(Cli::try_parse_from(["cutover", "plan", "--markdwn"]).is_err());
    assert_eq!(
        commands("x\n  cutover drift m --markdown > a || b"),
        [["cutover", "drift", "m", "--markdown"]]
    );
}
