//! The example workflows' own scripts, run by the shell as a runner runs them: with a real git and
//! the real programs; what talks to the forge (`gh`, `curl`) is written down.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rig::scenario::MIGRATION;
use rig::{Declaration, Stage, programs};

use super::repository::{Repository, git};
use super::{assert_says, filled};

/// A workflow, and where its jobs are run.
struct Runner {
    stage: Stage,
    repository: Repository,
    workflow: String,
    /// Stand-ins for the programs that talk to the forge.
    programs: PathBuf,
    calls: PathBuf,
    variables: Vec<(&'static str, String)>,
}

/// What a script ended with, and what it said to the forge.
#[derive(Debug)]
struct Ran {
    code: i32,
    output: String,
    calls: String,
}

/// A program that writes down its arguments, and the files that they name.
const STAND_IN: &str = r#"#!/bin/bash
{
  printf '%s' "${0##*/}"
  printf ' %q' "$@"
  echo
  for argument in "$@"; do
    file="${argument#*@}"
    if [ -f "$file" ]; then cat "$file"; fi
  done
} >> "$CALLS"
if [ "$1 $2" = "issue list" ]; then cat "$CALLS.issue" 2> /dev/null; fi
exit 0
"#;

/// The one thing that the workflows ask `jq` for, where there is none.
const JQ: &str = r#"#!/usr/bin/env python3
import json, sys
assert sys.argv[1] == "-r" and "acknowledge_token != null" in sys.argv[2], sys.argv
for one in json.load(open(sys.argv[3]))["migrations"]:
    if one["acknowledge_token"] is not None:
        print(one["name"], one["acknowledge_token"])
"#;

fn program(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// The lines that belong to one: those after it that stand further in.
fn below<'t>(lines: &[&'t str], at: usize) -> Vec<&'t str> {
    let own = indent(lines[at]);
    lines[at + 1..]
        .iter()
        .copied()
        .take_while(|line| line.trim().is_empty() || indent(line) > own)
        .collect()
}

/// A YAML text of the three forms that the workflows have: on the line itself, literal (`|`) and
/// folded (`>-`).
fn value(on_line: &str, below: &[&str]) -> String {
    let first = below.first().map_or(0, |line| indent(line));
    let text: Vec<&str> = below.iter().map(|line| line.get(first..).unwrap_or_default()).collect();
    match on_line {
        "|" => text.join("\n"),
        ">-" => text.join(" "),
        line => line.to_owned(),
    }
}

impl Runner {
    async fn of(workflow: &str) -> Self {
        let stage = filled().await;
        let folder = stage.daemon.folder().join("git");
        fs::create_dir(&folder).unwrap();
        let repository = Repository::new(&folder);
        git(&repository.origin, &["config", "receive.advertisePushOptions", "true"]);
        let stand_ins = folder.join("programs");
        fs::create_dir(&stand_ins).unwrap();
        ["gh", "curl"].iter().for_each(|name| program(&stand_ins, name, STAND_IN));
        if Command::new("jq").arg("--version").output().is_err() {
            program(&stand_ins, "jq", JQ);
        }
        let text = fs::read_to_string(programs::workspace_folder().join("examples").join(workflow))
            .unwrap();
        let variables = vec![
            ("CUTOVER_ENDPOINT", stage.daemon.endpoint()),
            ("GITHUB_REF_NAME", "main".to_owned()),
            ("CI_DEFAULT_BRANCH", "main".to_owned()),
            ("PUSH_URL", repository.origin.display().to_string()),
            ("CI_API_V4_URL", "https://gitlab.example.net/api/v4".to_owned()),
            ("CI_PROJECT_ID", "7".to_owned()),
            ("CI_MERGE_REQUEST_IID", "12".to_owned()),
            ("NOTES_TOKEN", "of-the-notes".to_owned()),
        ];
        let calls = folder.join("calls");
        Self { stage, repository, workflow: text, programs: stand_ins, calls, variables }
    }

    /// The scripts of a job, one for each step of GitHub's, and one of all lines of GitLab's
    /// `script` and of its `after_script`.
    fn scripts(&self, job: &str) -> Vec<String> {
        let lines: Vec<&str> = self.workflow.lines().collect();
        let at = lines
            .iter()
            .position(|line| line.trim() == format!("{job}:"))
            .unwrap_or_else(|| panic!("no job {job}"));
        let job = below(&lines, at);
        let mut scripts = Vec::new();
        for (at, line) in job.iter().enumerate() {
            let key = line.trim_start().trim_start_matches("- ");
            if let Some(text) = key.strip_prefix("run: ") {
                scripts.push(value(text, &below(&job, at)));
            } else if matches!(key, "script:" | "after_script:") {
                let items = below(&job, at);
                let starts = items
                    .iter()
                    .enumerate()
                    .filter_map(|(at, line)| Some((at, line.trim_start().strip_prefix("- ")?)));
                let texts: Vec<String> =
                    starts.map(|(at, text)| value(text, &below(&items, at))).collect();
                scripts.push(texts.join("\n"));
            }
        }
        assert!(!scripts.is_empty(), "no script");
        scripts
    }

    /// Runs a job's scripts, one after the other, where the pipeline's clone stands; the last code
    /// that is not 0 counts.
    fn run(&self, job: &str) -> Ran {
        let _ = fs::remove_file(&self.calls);
        let mut ran = Ran { code: 0, output: String::new(), calls: String::new() };
        let search = std::env::join_paths(
            [
                self.programs.clone(),
                programs::programs().unwrap().cutover.parent().unwrap().to_owned(),
            ]
            .into_iter()
            .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
        )
        .unwrap();
        for script in self.scripts(job) {
            // What GitHub puts in for its own expressions.
            let script = script.replace("${{ github.event.number }}", "12");
            assert!(!script.contains("${{"), "{script}");
            let output = Command::new("bash")
                .args(["--noprofile", "--norc", "-eo", "pipefail", "-c", &script])
                .current_dir(&self.repository.pipeline)
                .env("PATH", &search)
                .env("CALLS", &self.calls)
                .env("GIT_CONFIG_GLOBAL", "/dev/null")
                .env("CI_COMMIT_SHA", git(&self.repository.pipeline, &["rev-parse", "HEAD"]))
                .envs(self.variables.iter().map(|(name, value)| (name, value)))
                .output()
                .unwrap();
            ran.output.push_str(&String::from_utf8_lossy(&output.stdout));
            ran.output.push_str(&String::from_utf8_lossy(&output.stderr));
            if !output.status.success() {
                ran.code = output.status.code().unwrap();
            }
        }
        ran.calls = fs::read_to_string(&self.calls).unwrap_or_default();
        ran
    }

    /// Runs a job that must end well.
    fn succeed(&self, job: &str) -> Ran {
        let ran = self.run(job);
        assert_eq!(ran.code, 0, "{job}: {ran:#?}");
        ran
    }

    fn branches(&self) -> Vec<String> {
        let listed = git(
            &self.repository.origin,
            &["for-each-ref", "--format=%(refname:short)", "refs/heads/"],
        );
        listed.lines().filter(|name| name.starts_with("cut-over-")).map(str::to_owned).collect()
    }

    /// The whole way: proposed with its plan, applied, ready, the acknowledgement proposed by the
    /// pipeline, merged, completed.
    async fn story(&self, said_to_the_forge: &[&str]) {
        let declared = self.declaration();
        self.repository.propose("migrate-orders", &declared);
        self.repository.check_out("migrate-orders");
        let planned = self.succeed("plan");
        assert_says(&planned.calls, &["orders will be created", "<details>"]);
        self.repository.merge("migrate-orders");
        self.repository.check_out("main");
        self.succeed("propose-cutover");
        assert_eq!(self.branches(), Vec::<String>::new(), "nothing is ready");
        self.succeed("apply");
        self.stage.wait_for("ready").await.unwrap();
        self.stage
            .status_where(MIGRATION, "ready to cut over", |status| status["ready"]["value"] == true)
            .await
            .unwrap();
        assert_eq!(self.succeed("drift").calls, "");

        let proposed = self.succeed("propose-cutover");
        let branches = self.branches();
        assert_eq!(branches.len(), 1, "{proposed:#?}");
        assert_says(&format!("{}{}", proposed.calls, proposed.output), said_to_the_forge);
        self.repository.check_out("main");
        self.succeed("propose-cutover");
        assert_eq!(self.branches(), branches, "a token is proposed once");
        self.repository.check_out(&branches[0]);
        let planned = self.succeed("plan");
        assert_says(&planned.calls, &["will cut over", "blocks all writes on"]);

        // Somebody pauses by hand meanwhile.
        self.stage.cutover.succeed(["pause", MIGRATION]).await.unwrap();
        self.repository.check_out("main");
        let drift = self.run("drift");
        assert_eq!(drift.code, 2, "{drift:#?}");
        assert_says(&format!("{}{}", drift.calls, drift.output), &["paused by hand"]);
        if self.workflow.contains("gh issue") {
            // It is one issue for as long as it is open.
            assert_says(&drift.calls, &["gh issue create"]);
            fs::write(self.calls.with_extension("issue"), "41").unwrap();
            let again = self.run("drift");
            assert!(
                again.calls.contains("gh issue edit 41")
                    && !again.calls.contains("gh issue create"),
                "{again:#?}"
            );
        }
        self.stage.cutover.succeed(["resume", MIGRATION]).await.unwrap();
        self.stage.wait_for("ready").await.unwrap();

        self.repository.merge_pushed(&branches[0]);
        self.repository.check_out("main");
        self.succeed("apply");
        self.stage.wait_for("completed").await.unwrap();
        self.succeed("drift");
        self.succeed("propose-cutover");
        assert_eq!(self.branches(), branches, "what has cut over is not proposed again");
    }

    fn declaration(&self) -> Declaration {
        self.stage.declaration().set("cutover.acknowledge", "null")
    }
}

#[tokio::test]
async fn the_workflow_for_github_goes_the_whole_way() {
    let runner = Runner::of("github-actions/cutover.yml").await;
    runner
        .story(&["gh pr create --head cut-over-orders-cut-", "--base main", "will cut over"])
        .await;
}

#[tokio::test]
async fn the_workflow_for_gitlab_goes_the_whole_way() {
    let runner = Runner::of("gitlab-ci/.gitlab-ci.yml").await;
    runner.story(&[]).await;
}
