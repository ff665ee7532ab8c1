//! The real `cutover` program against a daemon in memory: exit codes, streams, documents,
//! questions.

mod fake_daemon;
mod terminal;

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use self::fake_daemon::{FakeDaemon, report, source_down, started};
use provider::plan::Plan;
use provider::saved_plan::SavedPlan;
use schemas::fault::{Fault, FaultCode};
use schemas::phase::Phase;
use schemas::spec::MigrationSpec;
use serde_json::Value;

const HCL: &str = r#"daemon {
  workspace = "payments"
}

migration "orders" {
  source {
    uri      = "mongodb://127.0.0.1:27999/?replicaSet=rs0"
    username = "migrator"
    password = { env = "ORDERS_PASSWORD" }
  }
  destination {
    uri = "mongodb://127.0.0.1:27998/?replicaSet=rs1"
  }
  verify { mode = "off" }
  cutover {
    window = "120h"
  }
}
"#;

/// A folder with a declaration, and a daemon.
struct Place {
    folder: tempfile::TempDir,
    daemon: FakeDaemon,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir(folder.path().join("hcl")).expect("a folder");
        let place = Self { daemon: FakeDaemon::start(folder.path()), folder };
        place.declare(HCL);
        place
    }

    fn declare(&self, hcl: &str) {
        fs::write(self.hcl().join("orders.hcl"), hcl).expect("the HCL");
    }

    fn hcl(&self) -> PathBuf {
        self.folder.path().join("hcl")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = cutover(&self.hcl(), args);
        command.env("CUTOVER_ENDPOINT", self.daemon.endpoint());
        command
    }

    fn run(&self, args: &[&str]) -> Ran {
        Ran::from(self.command(args).stdin(Stdio::null()).output().expect("the program runs"))
    }

    fn answer(&self, args: &[&str], answer: &str) -> Ran {
        let mut child = self
            .command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program runs");
        // One that does not ask may be gone already.
        let _ = child.stdin.take().expect("its stdin").write_all(answer.as_bytes());
        Ran::from(child.wait_with_output().expect("it ends"))
    }

    /// The declared spec, as the program itself reads it.
    fn spec(&self) -> MigrationSpec {
        let ran = self.run(&["apply", "--auto-approve"]);
        assert_eq!(ran.code, 0, "{ran:?}");
        let spec = self.daemon.state().applied.last().expect("an apply").changes[0].spec.clone();
        serde_json::from_str(&spec).expect("a spec")
    }
}

fn cutover(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cutover"));
    command.current_dir(folder).args(args).env_clear().env("USER", "ada");
    command
}

#[derive(Debug)]
struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().expect("it was not killed"),
            out: String::from_utf8(output.stdout).expect("UTF-8"),
            err: String::from_utf8(output.stderr).expect("UTF-8"),
        }
    }
}

impl Ran {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out)
            .unwrap_or_else(|error| panic!("not one JSON document: {error}\n{self:?}"))
    }

    #[track_caller]
    fn is(&self, code: i32, out: &[&str], err: &[&str]) {
        assert_eq!(self.code, code, "{self:?}");
        assert!(
            out.iter().all(|text| self.out.contains(text)),
            "{out:?} should be in stdout: {self:?}"
        );
        assert!(
            err.iter().all(|text| self.err.contains(text)),
            "{err:?} should be in stderr: {self:?}"
        );
        assert!(!err.is_empty() || self.err.is_empty(), "stderr should be empty: {self:?}");
    }
}

#[test]
fn usage_errors_are_no_drift() {
    let folder = tempfile::tempdir().expect("a folder");
    for args in [
        &["plan", "--colour"][..],
        &["nonsense"],
        &[],
        &["extend", "orders", "--by", "12h"],
        &["status", "--watch", "--json"],
        &["apply", "--wait", "almost"],
        &["pause"],
    ] {
        let ran = Ran::from(cutover(folder.path(), args).output().expect("the program runs"));
        assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{args:?}: {ran:?}");
        assert!(!ran.err.is_empty(), "{args:?}");
    }
    let help = Ran::from(cutover(folder.path(), &["--help"]).output().expect("the program runs"));
    help.is(0, &["preflight", "Exit codes"], &[]);
    assert!(help.out.contains("\n  restart-shard "), "{help:?}");
}

#[test]
fn a_name_in_the_place_of_a_directory_is_told() {
    let place = Place::new();
    place.declare(HCL);
    place.run(&["preflight", "orders"]).is(
        1,
        &[],
        &["error[CUT0001]", "no directory orders", "cutover preflight . orders"],
    );
    place.run(&["apply", "p.cutplan"]).is(
        1,
        &[],
        &["error[CUT0001]", "p.cutplan is not there", "plan --out"],
    );
    place.run(&["plan", "orders"]).is(
        1,
        &[],
        &["error[CUT0001]", "the directory orders cannot be read"],
    );
}

#[test]
fn a_daemon_that_cannot_be_reached_is_exit_code_3() {
    let folder = tempfile::tempdir().expect("a folder");
    let missing = folder.path().join("missing.sock");
    let refused = folder.path().join("refused.sock");
    drop(std::os::unix::net::UnixListener::bind(&refused).expect("a socket"));
    for (socket, why) in [(&missing, "no such file"), (&refused, "connection refused")] {
        let endpoint = format!("unix://{}", socket.display());
        for args in
            [&["status"][..], &["status", "--json"], &["events", "orders"], &["pause", "orders"]]
        {
            let args: Vec<&str> = args.iter().copied().chain(["--endpoint", &endpoint]).collect();
            let ran = Ran::from(cutover(folder.path(), &args).output().expect("the program runs"));
            ran.is(
                3,
                &[],
                &[
                    "error[CUT0003]: cannot reach the daemon at ",
                    &endpoint,
                    why,
                    "  remedy: start cutoverd",
                ],
            );
            assert_eq!(ran.out, "");
        }
    }
    fs::write(folder.path().join("orders.hcl"), HCL).expect("the HCL");
    for args in [
        &["plan"][..],
        &["plan", "--json"],
        &["apply", "--auto-approve"],
        &["drift"],
        &["preflight"],
    ] {
        let ran = Ran::from(
            cutover(folder.path(), args)
                .env("CUTOVER_ENDPOINT", "unix:missing.sock")
                .output()
                .expect("it runs"),
        );
        ran.is(3, &[], &["error[CUT0003]", "unix:missing.sock", "no such file"]);
        assert_eq!(ran.out, "");
    }
}

#[test]
fn endpoints_that_are_none_are_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let ran = Ran::from(
        cutover(folder.path(), &["status", "--endpoint", "http://h:1"])
            .output()
            .expect("the program runs"),
    );
    ran.is(1, &[], &["error[CUT0001]", "http://h:1", "unix:///run/cutover/cutoverd.sock"]);
}

#[test]
fn the_endpoint_comes_from_the_flag_the_environment_or_the_daemon_block() {
    let place = Place::new();
    let in_block = format!(
        "daemon {{\n  endpoint = \"{}\"\n  workspace = \"payments\"\n",
        place.daemon.endpoint()
    );
    place.declare(&HCL.replace("daemon {\n  workspace = \"payments\"\n", &in_block));
    for args in [&["status"][..], &["plan"]] {
        let ran = Ran::from(cutover(&place.hcl(), args).output().expect("the program runs"));
        assert_eq!(ran.code, 0, "{ran:?}");
        let ran = Ran::from(
            cutover(&place.hcl(), args)
                .env("CUTOVER_ENDPOINT", "unix:/no")
                .output()
                .expect("it runs"),
        );
        assert_eq!(ran.code, 3, "{ran:?}");
        let flag: Vec<&str> =
            args.iter().copied().chain(["--endpoint", "unix:../d.sock"]).collect();
        let ran = Ran::from(
            cutover(&place.hcl(), &flag)
                .env("CUTOVER_ENDPOINT", "unix:/no")
                .output()
                .expect("it runs"),
        );
        assert_eq!(ran.code, 0, "{ran:?}");
    }
}

#[test]
fn validate_needs_no_daemon() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("orders.hcl"), HCL).expect("the HCL");
    let run =
        |args: &[&str]| Ran::from(cutover(folder.path(), args).output().expect("the program runs"));
    run(&["validate"]).is(0, &["1 migration of workspace payments is valid."], &[]);
    fs::write(folder.path().join("orders.hcl"), HCL.replace("window ", "windw ")).expect("the HCL");
    run(&["validate"]).is(1, &[], &["error[CUT0001]", "windw", "orders.hcl:", "window"]);
    let ran = run(&["plan", "--json"]);
    let plan: Plan = serde_json::from_value(ran.json()).expect("a plan");
    assert!(
        ran.code == 1 && plan.has_errors() && plan.workspace.is_none() && ran.err.contains("windw"),
        "{ran:?}"
    );
}

#[test]
fn fmt_lays_out_and_with_check_only_tells() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("a file");
    let read = |name: &str| fs::read_to_string(folder.path().join(name)).expect("a file");
    let run =
        |args: &[&str]| Ran::from(cutover(folder.path(), args).output().expect("the program runs"));
    let (crooked, straight) = (
        "locals {\n a=1 # one\n    bcd =  [ 2 ]\n}\n",
        "locals {\n  a   = 1 # one\n  bcd = [2]\n}\n",
    );
    write("a.hcl", crooked);
    write("b.hcl", straight);
    write("x.auto.hclvars", "w=1\n");
    write("notes.txt", crooked);
    let checked = run(&["fmt", "--check"]);
    assert_eq!(
        (checked.code, checked.out.as_str(), checked.err.as_str()),
        (1, "a.hcl\nx.auto.hclvars\n", "")
    );
    assert_eq!(read("a.hcl"), crooked, "--check changes nothing");
    fs::set_permissions(folder.path().join("a.hcl"), fs::Permissions::from_mode(0o640))
        .expect("permissions");
    let done = run(&["fmt"]);
    assert_eq!((done.code, done.out.as_str()), (0, "a.hcl\nx.auto.hclvars\n"));
    assert_eq!(
        (read("a.hcl").as_str(), read("x.auto.hclvars").as_str(), read("notes.txt").as_str()),
        (straight, "w = 1\n", crooked)
    );
    let mode = fs::metadata(folder.path().join("a.hcl")).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    for args in [&["fmt"][..], &["fmt", "--check"]] {
        let again = run(args);
        assert_eq!((again.code, again.out.as_str()), (0, ""), "{args:?}");
    }
    // One that does not parse is reported; the others are laid out all the same.
    write("a.hcl", crooked);
    write("c.hcl", "locals {\n");
    run(&["fmt"]).is(1, &["a.hcl"], &["error[CUT0001]", "c.hcl"]);
    assert_eq!((read("a.hcl").as_str(), read("c.hcl").as_str()), (straight, "locals {\n"));
    run(&["fmt", "nowhere"]).is(1, &[], &["nowhere"]);
}

#[test]
fn a_migration_is_planned_applied_and_then_as_declared() {
    let place = Place::new();
    let created = [
        "+ migration \"orders\"",
        "env ORDERS_PASSWORD",
        "reads 2 collections with 1,000 documents",
        "Plan: 1 to create,",
    ];
    place.run(&["plan", "--detailed-exitcode"]).is(2, &created, &[]);
    place.run(&["plan"]).is(0, &created, &[]);
    assert!(place.daemon.state().applied.is_empty());

    place.answer(&["apply"], "yes\n").is(
        0,
        &["Only \"yes\" will be accepted", "orders: created (serial 1, run orders-1-"],
        &[],
    );
    {
        let state = place.daemon.state();
        let request = &state.applied[0];
        assert_eq!(
            (request.workspace.as_str(), request.changes[0].expected_serial),
            ("payments", 0)
        );
        assert_eq!(request.actor.as_ref().expect("an actor").name, "ada");
    }
    place.run(&["plan", "--detailed-exitcode"]).is(0, &["No differences"], &[]);
    place.run(&["apply"]).is(0, &["No differences"], &[]);
    place.run(&["drift"]).is(0, &["No drift"], &[]);

    place.declare(&HCL.replace("120h", "144h"));
    place.run(&["plan", "--detailed-exitcode"]).is(
        2,
        &["~ cutover.window = \"120h\" -> \"144h\"", "1 to change"],
        &[],
    );
    place.run(&["plan", "--markdown"]).is(
        0,
        &["**Plan: 0 to create, 1 to change", "<details>"],
        &[],
    );
    place.run(&["plan", "--detailed-exitcode", "--target", "orders"]).is(2, &["1 to change"], &[]);
    place.run(&["plan", "--target", "order"]).is(
        1,
        &[],
        &["error[CUT0008]", "did you mean orders?"],
    );
    let plan: Plan = serde_json::from_value(place.run(&["plan", "--json"]).json()).expect("a plan");
    assert_eq!((plan.changes.len(), plan.changes[0].serial.0), (1, 1));
}

#[test]
fn anything_but_yes_applies_nothing() {
    let place = Place::new();
    for answer in ["no\n", "y\n", "YES\n", "", "\n"] {
        place.answer(&["apply"], answer).is(
            1,
            &["Only \"yes\""],
            &["error[CUT0036]", "--auto-approve"],
        );
    }
    place.answer(&["apply", "--json"], "yes\n").is(
        1,
        &[],
        &["error[CUT0036]", "--json leaves nowhere to ask"],
    );
    assert!(place.daemon.state().applied.is_empty());
}

#[test]
fn apply_says_in_json_what_was_done() {
    let place = Place::new();
    let ran = place.run(&["apply", "--auto-approve", "--json", "--wait", "copying"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let json = ran.json();
    assert_eq!(json["applied"][0]["migration"], "orders");
    assert_eq!(json["applied"][0]["run"], "orders-1-00000000000000aa");
    assert_eq!(json["statuses"][0]["phase"], "copying");
    assert_eq!(json["plan"]["changes"][0]["action"], "create");
}

#[test]
fn a_failed_check_stops_plan_and_apply() {
    let place = Place::new();
    place.daemon.state().inspections.insert("orders".to_owned(), source_down());
    let told = [
        "error[CUT0012]: cannot reach 127.0.0.1:27999: connection refused",
        "  remedy: check that mongod runs",
    ];
    place.run(&["plan", "--detailed-exitcode"]).is(
        1,
        &["how much that is, is not known", "cannot be applied: 1 error"],
        &told,
    );
    place.run(&["apply", "--auto-approve"]).is(1, &["1 to create"], &told);
    let file = place.path("plan.json");
    place.run(&["plan", "--out", file.to_str().expect("a name")]).is(
        1,
        &["1 to create"],
        &["is not written"],
    );
    assert!(!file.exists());
    let ran = place.run(&["plan", "--json"]);
    ran.is(1, &[], &told);
    assert_eq!(ran.json()["diagnostics"][0]["code"], "CUT0012");
    let ran = place.run(&["apply", "--auto-approve", "--json"]);
    assert_eq!((ran.code, ran.json()["applied"].clone()), (1, serde_json::json!([])));
    place.run(&["preflight"]).is(
        1,
        &["fail", "source_reachable", "CUT0012", "remedy: check that mongod"],
        &[],
    );
    let ran = place.run(&["preflight", "--json"]);
    assert_eq!(
        (ran.code, ran.json()["preflight"][0]["checks"][0]["outcome"].clone()),
        (1, "fail".into())
    );
    assert!(place.daemon.state().applied.is_empty());
}

#[test]
fn a_refusal_of_the_daemon_is_told_as_it_is() {
    let place = Place::new();
    let fault =
        Fault::new(FaultCode::PlanOutdated, "orders is at serial 4, the plan was made on 3");
    place.daemon.state().refuse_apply = Some(fault);
    let ran = place.run(&["apply", "--auto-approve"]);
    ran.is(
        1,
        &[],
        &["error[CUT0009]: orders is at serial 4", "  remedy: run `cutover plan` again"],
    );
}

#[test]
fn drift_is_exit_code_2() {
    let place = Place::new();
    place.spec();
    {
        let mut state = place.daemon.state();
        let one = &mut state.observed[0];
        one.by_hand.paused = Some(true);
        one.status.paused = true;
        one.status.phase = Phase::Paused;
    }
    place.run(&["drift"]).is(2, &["orders paused", "by hand"], &[]);
    place.run(&["drift", "--markdown"]).is(2, &["| orders | paused |"], &[]);
    let ran = place.run(&["drift", "--json"]);
    assert_eq!((ran.code, ran.json()["drift"][0]["kind"].clone()), (2, "paused".into()));
    place.run(&["plan", "--detailed-exitcode"]).is(2, &["orders paused", "will be resumed"], &[]);
    place.run(&["plan"]).is(0, &["orders paused"], &[]);
}

#[test]
fn a_saved_plan_is_applied_exactly_or_not_at_all() {
    let place = Place::new();
    let file = place.path("plan.json");
    let name = file.to_str().expect("a name");
    place.run(&["plan", "--out", name]).is(0, &["1 to create"], &["cutover apply"]);
    let mode = fs::metadata(&file).expect("the plan").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    place.run(&["show", name]).is(0, &["1 to create"], &[]);
    assert_eq!(place.run(&["show", name, "--json"]).json()["workspace"], "payments");
    place.run(&["apply", name, "--target", "orders"]).is(1, &[], &["--target cannot be given"]);

    place.declare(&HCL.replace("120h", "121h"));
    fs::write(place.hcl().join("more.hcl"), "").expect("the HCL");
    place.run(&["apply", name]).is(
        1,
        &[],
        &["error[CUT0009]", "orders.hcl was edited", "more.hcl is new"],
    );
    place.declare(HCL);
    fs::remove_file(place.hcl().join("more.hcl")).expect("the HCL");

    // A plan needs no question: it was reviewed.
    place.run(&["apply", name]).is(0, &["orders: created"], &[]);
    place.run(&["apply", name]).is(
        1,
        &[],
        &["error[CUT0009]", "orders did not exist, and is there at serial 1 now"],
    );

    place.declare(&HCL.replace("120h", "144h"));
    place.run(&["plan", "--out", name]).is(0, &["1 to change"], &["cutover apply"]);
    place.daemon.state().observed[0].status.serial = schemas::id::Serial(7);
    place.run(&["apply", name]).is(
        1,
        &[],
        &["error[CUT0009]", "orders was at serial 1, and is at 7 now"],
    );

    let written = fs::read_to_string(&file).expect("the plan");
    for (format, remedy) in
        [(1, "plan again: nothing binds"), (3, "with the version of cutover that made it")]
    {
        let other =
            written.replacen("\"format_version\": 2", &format!("\"format_version\": {format}"), 1);
        fs::write(&file, other).expect("the plan");
        place.run(&["apply", name]).is(
            1,
            &[],
            &["error[CUT0005]", &format!("format {format}"), remedy],
        );
    }
    fs::write(&file, "{}").expect("the plan");
    place.run(&["show", name]).is(1, &[], &["error[", "no saved plan"]);
}

/// A saved plan with some of its members changed and a digest that fits.
fn signed_anew(written: &str, change: impl FnOnce(&mut serde_json::Value)) -> String {
    let mut document: serde_json::Value = serde_json::from_str(written).expect("JSON");
    change(&mut document);
    document.as_object_mut().expect("an object").remove("sha256");
    let text = provider::output::pretty(&document);
    let bound = text.strip_suffix("\n}\n").expect("the end");
    format!("{bound},\n  \"sha256\": \"{}\"\n}}\n", schemas::spec::sha256_hex(bound.as_bytes()))
}

#[test]
fn no_other_bytes_than_were_saved_are_shown_or_applied() {
    let place = Place::new();
    let mut found = fake_daemon::well();
    found.drops = vec!["shop.orders".parse().expect("a namespace")];
    place.daemon.state().inspections.insert("orders".to_owned(), found);
    let file = place.path("plan.json");
    let name = file.to_str().expect("a name");
    place.run(&["plan", "--out", name]).is(0, &["1 to create"], &["cutover apply"]);
    let written = fs::read(&file).expect("the plan");
    let read = |bytes: &[u8]| {
        fs::write(&file, bytes).expect("the plan");
        SavedPlan::read(&file)
    };
    // Some of each byte's bits in turn, and every bit of the digest at its end.
    let bits = written.len() * 8;
    for at in (0..bits).step_by(37).chain(bits - 80 * 8..bits) {
        let mut bytes = written.clone();
        bytes[at / 8] ^= 1 << (at % 8);
        let refused = read(&bytes).map(drop).expect_err(&format!("bit {at} is turned"));
        assert!(!refused.remedy.is_empty(), "{refused:?}");
    }
    for length in (0..written.len()).step_by(41).chain(written.len() - 80..written.len()) {
        assert!(read(&written[..length]).is_err(), "{length} bytes of it");
    }
    for (before, after) in [("", "\n"), ("", "{}"), (" ", ""), ("\u{feff}", ""), ("", "\0")] {
        assert!(
            read(&[before.as_bytes(), &written, after.as_bytes()].concat()).is_err(),
            "{before:?} {after:?}"
        );
    }
    // Through the program, too.
    for at in [written.len() / 3, written.len() / 2, written.len() - 10] {
        let mut bytes = written.clone();
        bytes[at] ^= 1;
        fs::write(&file, &bytes).expect("the plan");
        for words in [vec!["show", name], vec!["show", name, "--json"], vec!["apply", name]] {
            place.run(&words).is(1, &[], &["error[", "damaged", "cutover plan --out FILE"]);
        }
    }

    // What is signed anew shows what it applies, or is refused.
    let text = String::from_utf8(written).expect("text");
    type Change = fn(&mut serde_json::Value);
    let contradictions: [(&str, Change); 8] = [
        ("action", |plan| plan["plan"]["changes"][0]["action"] = "update".into()),
        ("serial", |plan| plan["plan"]["changes"][0]["serial"] = 7.into()),
        ("effects", |plan| plan["plan"]["changes"][0]["effects"] = serde_json::json!(["nothing"])),
        ("after", |plan| plan["plan"]["changes"][0]["attributes"][0]["after"] = 7.into()),
        ("fingerprint", |plan| plan["plan"]["fingerprint"] = "0".repeat(64).into()),
        ("spec", |plan| {
            plan["declared"]["orders"]["spec"]["destination"]["existing_data"] = "drop".into()
        }),
        ("name", |plan| plan["declared"]["orders"]["spec"]["name"] = "others".into()),
        ("workspace", |plan| plan["workspace"] = "others".into()),
    ];
    for (what, change) in contradictions {
        fs::write(&file, signed_anew(&text, change)).expect("the plan");
        place.run(&["show", name]).is(1, &[], &["error[", "it contradicts itself"]);
        assert!(SavedPlan::read(&file).is_err(), "{what}");
    }
    assert!(place.daemon.state().applied.is_empty());
    fs::write(&file, signed_anew(&text, |_| ())).expect("the plan");
    place.run(&["show", name]).is(0, &["1 to create"], &[]);

    // What it reports as the values before is what the daemon has.
    place.spec();
    place.declare(&HCL.replace("120h", "144h"));
    place.run(&["plan", "--out", name]).is(0, &["\"120h\" -> \"144h\""], &["cutover apply"]);
    let text = fs::read_to_string(&file).expect("the plan");
    let lied = signed_anew(&text, |plan| {
        let before = |value: &mut serde_json::Value| *value = "96h".into();
        before(&mut plan["observed"][0]["spec"]["cutover"]["window"]);
        before(&mut plan["plan"]["changes"][0]["attributes"][0]["before"]);
    });
    fs::write(&file, lied).expect("the plan");
    place.run(&["apply", name]).is(
        1,
        &[],
        &["error[CUT0009]", "orders is not declared as the plan tells"],
    );
}

#[test]
fn a_saved_plan_drops_no_more_than_it_listed() {
    let place = Place::new();
    place.declare(
        &HCL.replace("/?replicaSet=rs1\"", "/?replicaSet=rs1\"\n    existing_data = \"drop\""),
    );
    let mut found = fake_daemon::well();
    found.drops = vec!["shop.orders".parse().expect("a namespace")];
    place.daemon.state().inspections.insert("orders".to_owned(), found.clone());
    let file = place.path("plan.json");
    let name = file.to_str().expect("a name");
    place.run(&["plan", "--out", name]).is(
        0,
        &["drops 1 collection on the destination: shop.orders"],
        &["cutover apply"],
    );
    found.drops.push("shop.new".parse().expect("a namespace"));
    place.daemon.state().inspections.insert("orders".to_owned(), found);
    place.run(&["apply", name]).is(1, &[], &["error[CUT0009]", "did not list: shop.new"]);
    assert!(place.daemon.state().applied.is_empty());
}

#[test]
fn waits_end_when_the_phase_is_reached_out_of_reach_or_out_of_time() {
    let place = Place::new();
    place.daemon.state().on_observe = Some(Box::new(|observed| {
        for one in observed {
            one.status.phase = Phase::Ready;
        }
    }));
    place.run(&["apply", "--auto-approve", "--wait", "catching_up"]).is(
        0,
        &["orders: created"],
        &["orders: copying", "orders: ready"],
    );

    place.daemon.state().on_observe = None;
    let began = std::time::Instant::now();
    place.run(&["apply", "--wait", "completed", "--timeout", "1s"]).is(
        1,
        &["No differences"],
        &["error[CUT0037]"],
    );
    assert!(began.elapsed() < std::time::Duration::from_secs(10));

    {
        let mut state = place.daemon.state();
        state.observed[0].status.phase = Phase::Failed;
        state.observed[0].status.error =
            Some(Fault::new(FaultCode::ResumePointLost, "the oplog of rs0 rolled over"));
    }
    place.run(&["apply", "--wait", "ready"]).is(
        1,
        &[],
        &["error[CUT0038]", "the oplog of rs0 rolled over", "raise `generation`"],
    );
}

#[test]
fn status_is_for_people_and_for_machines() {
    let place = Place::new();
    place.run(&["status"]).is(0, &["No migrations."], &[]);
    assert_eq!(place.run(&["status", "--json"]).json(), serde_json::json!({"migrations": []}));
    place.run(&["status", "orders"]).is(1, &[], &["error[CUT0008]", "orders"]);
    place.spec();
    place.run(&["status"]).is(
        0,
        &[
            "orders  copying",
            "25 %",
            "500 kB of 2.0 MB",
            "rs0",
            "not ready",
            "the copy is not done",
        ],
        &[],
    );
    let json = place.run(&["status", "orders", "--json"]).json();
    let one = &json["migrations"][0];
    assert_eq!((&one["phase"], &one["lag_seconds"]), (&Value::from("copying"), &Value::Null));
    assert!(one.as_object().expect("an object").contains_key("acknowledge_token"));
    place.run(&["status", "--workspace", "other"]).is(0, &["No migrations."], &[]);
    {
        let mut state = place.daemon.state();
        let one = &mut state.observed[0].status;
        one.error = Some(Fault::new(
            FaultCode::Unreachable,
            "cannot reach 127.0.0.1:27999: connection refused",
        ));
    }
    place.run(&["status"]).is(
        0,
        &["CUT0012", "remedy: check that mongod runs", "the daemon tries again"],
        &[],
    );
}

#[test]
fn status_tells_of_a_watched_directory_that_is_not_applied() {
    let place = Place::new();
    let watching = serde_json::json!({"directory": "/etc/cutover/hcl", "outcome": "refused",
        "fingerprint": "5f1c",
        "since": "2026-03-01T10:00:00.000Z",
        "diagnostics": [{"severity": "error", "code": "CUT0001",
        "summary": "unknown attribute \"pausd\"", "detail": "Did you mean paused?", "place": null,
        "context": null, "related": []}]});
    place.daemon.state().watching = watching.to_string();
    place.run(&["status"]).is(
        0,
        &["No migrations."],
        &["cutoverd watches /etc/cutover/hcl", "pausd", "Did you mean"],
    );
    let json = place.run(&["status", "--json"]);
    assert_eq!(json.json(), serde_json::json!({"migrations": []}), "stdout has the document alone");
    place.daemon.state().watching = watching.to_string().replace("refused", "applied");
    place.run(&["status"]).is(0, &["No migrations."], &[]);
}

#[test]
fn watching_ends_when_the_runs_are_over() {
    let place = Place::new();
    place.spec();
    let mut step = 0;
    place.daemon.state().on_observe = Some(Box::new(move |observed| {
        step += 1;
        for one in observed {
            one.status.phase = if step < 2 { Phase::CatchingUp } else { Phase::Completed };
        }
    }));
    let ran = place.run(&["status", "--watch"]);
    ran.is(0, &["orders: copying", "orders: catching_up", "orders: completed"], &[]);
    assert_eq!(ran.out.lines().count(), 3, "{ran:?}");
}

fn entries(count: u64) -> Vec<schemas::history::Entry> {
    (1..=count)
        .map(|seq| {
            serde_json::from_value(serde_json::json!({
                "seq": seq, "at": "2026-01-31T09:00:00.250Z", "workspace": "payments",
                "migration": "orders",
                "run": "orders-1-00000000000000aa", "kind": "transition", "from": "validating",
                "to": "copying",
                "actor": {"uid": 1000, "name": "ada", "revision": "4f2c"}, "message": "the checks \
                     passed"
            }))
            .expect("an entry")
        })
        .collect()
}

#[test]
fn events_are_for_people_and_for_machines() {
    let place = Place::new();
    place.daemon.state().events = entries(2);
    let line = "2026-01-31T09:00:00.250Z  validating -> copying";
    place.run(&["events", "orders"]).is(
        0,
        &[line, "the checks passed", "[ada (uid 1000) at 4f2c]"],
        &[],
    );
    assert_eq!(place.run(&["events", "orders", "--json"]).json()["events"][1]["seq"], 2);
    let followed = place.run(&["events", "orders", "--json", "--follow"]);
    assert_eq!(
        followed.out.lines().filter(|line| serde_json::from_str::<Value>(line).is_ok()).count(),
        2
    );
    place.run(&["events", "nobody"]).is(1, &[], &["error[CUT0008]"]);
}

const REPORT: &str = "\
orders  completed  workspace payments, run orders-2-00000000000000aa, generation 2
  migrated       5,000,000 documents in 14 collections, 12.0 GB, 31 indexes, 1,204,511 changes \
  followed
  took           1 d 2 h (2026-03-01T08:00:00.000Z to 2026-03-02T10:30:00.000Z)
  phases         validating 2.5 s, copying 1 h, catching_up 10 min, ready 1 d 1 h, draining 3 s, \
  finalizing 1 s
  verification   5,000,000 documents compared in 8 min 32 s, 1,300,000 comparisons of single \
  documents again, 41 generations; \
1 mismatch found, 0 open
  verification   1,207 documents last compared after the source was blocked
  verification   2 writes of others to the destination found, and compared
  acknowledged   2026-03-02T10:29:50.000Z by ada (uid 1000) at 4f2c9e1
  downtime       3.4 s
";

const REPORT_MARKDOWN: &str = "\
## orders has cut over

workspace payments, run orders-2-00000000000000aa, generation 2

| | |
|---|---|
| migrated | 5,000,000 documents in 14 collections, 12.0 GB, 31 indexes, 1,204,511 changes \
followed |
| took | 1 d 2 h (2026-03-01T08:00:00.000Z to 2026-03-02T10:30:00.000Z) |
| phases | validating 2.5 s, copying 1 h, catching\\_up 10 min, ready 1 d 1 h, draining 3 s, \
finalizing 1 s |
| verification | 5,000,000 documents compared in 8 min 32 s, 1,300,000 comparisons of single \
documents again, 41 generations; \
1 mismatch found, 0 open |
| verification | 1,207 documents last compared after the source was blocked |
| verification | 2 writes of others to the destination found, and compared |
| acknowledged | 2026-03-02T10:29:50.000Z by ada (uid 1000) at 4f2c9e1 |
| downtime | 3.4 s |
";

#[test]
fn a_completed_migration_is_reported() {
    let place = Place::new();
    place.spec();
    place.run(&["report", "orders"]).is(1, &[], &["CUT0010", "there is no report of orders yet"]);
    place.daemon.state().reports.insert("orders".to_owned(), report());
    let ran = place.run(&["report", "orders"]);
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (0, REPORT, ""));
    let ran = place.run(&["report", "orders", "--markdown"]);
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (0, REPORT_MARKDOWN, ""));
    let json = place.run(&["report", "orders", "--json"]).json();
    assert_eq!(json, serde_json::to_value(report()).expect("a document"));
    assert_eq!(
        (&json["format_version"], &json["acknowledged"]["by"]["revision"]),
        (&1.into(), &"4f2c9e1".into())
    );
}

#[test]
fn foreign_writes_are_drift_and_named() {
    let place = Place::new();
    let spec = place.spec();
    let mut observed = started("payments", &spec, 1);
    observed.foreign_writes = serde_json::from_value(serde_json::json!({
        "found": 4, "open": 2, "named": [
            {
                "namespace": "shop.orders", "_id": "5", "operation": "update",
                "time": {"t": 1_700_000_000, "i": 1}, "open": true,
            }]
    }))
    .expect("the shape of the shared types");
    place.daemon.state().observed = vec![observed];
    let ran = place.run(&["drift"]);
    ran.is(
        2,
        &["2 writes not found equal to the source yet, the newest: update of shop.orders _id 5"],
        &[],
    );
    let json = place.run(&["drift", "--json"]).json();
    assert_eq!(json["drift"][0]["kind"], "foreign_writes");
    place.run(&["verify", "orders"]).is(
        0,
        &["foreign write      shop.orders  _id 5  update at", "not found equal yet"],
        &[],
    );
    assert_eq!(place.run(&["verify", "orders", "--json"]).json()["foreign_writes"][0]["_id"], "5");
}

#[test]
fn a_reader_that_goes_away_is_no_panic() {
    let place = Place::new();
    place.daemon.state().events = entries(20_000);
    let mut child = place
        .command(&["events", "orders"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let mut first = String::new();
    BufReader::new(child.stdout.take().expect("its stdout")).read_line(&mut first).expect("a line");
    let output = child.wait_with_output().expect("it ends");
    assert!(first.contains("copying"));
    assert_eq!(
        (output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()),
        (Some(0), "")
    );
}

#[test]
fn acts_by_hand_reach_the_daemon() {
    use schemas::wire::v1::act_request::Act;
    let place = Place::new();
    place.spec();
    for args in [
        &["pause", "orders"][..],
        &["resume", "orders"],
        &["cancel", "orders"],
        &["extend", "orders", "--by", "48h"],
        &["restart-shard", "orders", "rs1"],
    ] {
        place.run(args).is(0, &["orders was acted upon"], &[]);
    }
    place.run(&["pause", "nobody"]).is(1, &[], &["error[CUT0008]", "there are: orders"]);
    for args in [
        &["pause", "order"][..],
        &["resume", "order"],
        &["cancel", "order"],
        &["extend", "order", "--by", "48h"],
        &["restart-shard", "order", "rs1"],
        &["status", "order"],
        &["status", "order", "--watch"],
        &["events", "order"],
        &["verify", "order"],
        &["report", "order"],
    ] {
        place.run(args).is(1, &[], &["error[CUT0008]", "did you mean orders?"]);
    }
    let state = place.daemon.state();
    let acts: Vec<_> = state.acts.iter().map(|act| act.act.clone().expect("an act")).collect();
    assert!(
        matches!(acts[0], Act::Pause(_))
            && matches!(acts[1], Act::Resume(_))
            && matches!(acts[2], Act::Cancel(_))
    );
    assert!(matches!(&acts[3], Act::Extend(extend) if extend.extensions == 2));
    assert!(matches!(&acts[4], Act::RestartShard(restart) if restart.shard == "rs1"));
    assert_eq!(state.acts[0].actor.as_ref().expect("an actor").name, "ada");
}

#[test]
fn nothing_is_coloured_off_a_terminal() {
    let place = Place::new();
    place.daemon.state().inspections.insert("orders".to_owned(), source_down());
    for args in [&["plan"][..], &["status"], &["nonsense"]] {
        let ran = place.run(args);
        assert!(!ran.out.contains('\u{1b}') && !ran.err.contains('\u{1b}'), "{ran:?}");
    }
}

#[test]
fn terminals_get_colour_unless_they_say_no() {
    let place = Place::new();
    for (variable, value, coloured) in [
        ("TERM", "xterm", true),
        ("NO_COLOR", "1", false),
        ("NO_COLOR", "", true),
        ("TERM", "dumb", false),
    ] {
        for args in [&["plan"][..], &["status", "nobody"]] {
            let mut command = place.command(args);
            command.env(variable, value);
            let (_, shown) = terminal::run(command);
            assert_eq!(shown.contains('\u{1b}'), coloured, "{variable}={value}: {shown:?}");
        }
    }
}

#[test]
fn watching_on_a_terminal_shows_a_bar_a_shard() {
    let place = Place::new();
    place.spec();
    let mut step = 0;
    place.daemon.state().on_observe = Some(Box::new(move |observed| {
        step += 1;
        for one in observed {
            let status = &mut one.status;
            if status.shards.len() == 1 {
                let name = schemas::id::ShardName("atlas-1a2b3c-shard-01".to_owned());
                status
                    .shards
                    .push(schemas::status::ShardStatus { name, ..status.shards[0].clone() });
            }
            status.shards[0].copy.bytes_copied += 500_000;
            if step == 2 {
                status.phase = Phase::CatchingUp;
                status.shards[0].phase = Phase::CatchingUp;
                status.shards[0].lag_seconds = Some(3.0);
            } else if step > 2 {
                status.phase = Phase::Completed;
                status.shards[0].phase = Phase::Completed;
            }
        }
    }));
    let mut command = place.command(&["status", "--watch"]);
    command.env("TERM", "xterm");
    let (code, shown) = terminal::run(command);
    assert_eq!(code, 0, "{shown}");
    for text in [
        "rs0                   [",
        "atlas-1a2b3c-shard-01 [",
        "[=",
        "500 kB of 2.0 MB",
        "1.0 MB of 2.0 MB",
        "lag 3 s",
        "orders: completed",
    ] {
        assert!(shown.contains(text), "{text:?} should show: {shown}");
    }
}

#[test]
fn a_token_that_is_not_the_runs_is_refused_at_its_place() {
    let place = Place::new();
    let spec = place.spec();
    let mut ready = started("payments", &spec, 1);
    ready.status.phase = Phase::Ready;
    ready.status.ready = schemas::status::Readiness { value: true, reasons: Vec::new() };
    ready.status.acknowledge_token = Some("tok-1".to_owned());
    place.daemon.state().observed = vec![ready];
    let with = |token: &str| {
        HCL.replace(
            "window = \"120h\"",
            &format!("window = \"120h\"\n    acknowledge = \"{token}\""),
        )
    };
    place.declare(&with("tok-0"));
    place.run(&["plan", "--detailed-exitcode"]).is(
        1,
        &[],
        &["error[CUT0022]", "orders.hcl:", "acknowledge = \"tok-0\"", "cutover status orders"],
    );
    place.run(&["apply", "--auto-approve"]).is(1, &[], &["error[CUT0022]"]);
    assert_eq!(place.daemon.state().applied.len(), 1);
    place.declare(&with("tok-1"));
    place.run(&["plan", "--detailed-exitcode"]).is(2, &["will cut over", "1 to cut over"], &[]);
    place.run(&["apply", "--auto-approve"]).is(0, &["orders: cutting over"], &[]);
}
