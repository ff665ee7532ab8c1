//! What needs no daemon: checks of the configuration, and a daemon that is not there.

use rig::Terraform;

use crate::scene::{ends, provider, says};

/// A module whose daemon does not exist.
fn module(body: &str) -> String {
    format!(
        "{}resource \"cutover_migration\" \"orders\" {{\n  name = \"orders\"\n{body}}}\n",
        provider("unix:///nowhere/cutoverd.sock")
    )
}

const SIDES: &str =
    "  source {\n    uri = \"mongodb://a\"\n  }\n  destination {\n    uri = \"mongodb://b\"\n  }\n";

#[tokio::test]
async fn mistakes_are_shown_with_their_line_and_no_daemon_is_asked() {
    let terraform = Terraform::new().await.unwrap();
    for (body, message, line) in [
        (
            format!("{SIDES}  cutover {{\n    windw = \"12h\"\n  }}\n"),
            "Unsupported argument",
            "windw = \"12h\"",
        ),
        (
            format!("{SIDES}  cutover {{\n    window = \"soon\"\n  }}\n"),
            "window is not a duration",
            "window = \"soon\"",
        ),
        (
            format!("{SIDES}  namespaces {{\n    include = [\"a.*\", \"b\"]\n  }}\n"),
            "\"b\" is not a namespace pattern",
            "include = [\"a.*\", \"b\"]",
        ),
        (
            format!("{SIDES}  wait_for = \"redy\"\n"),
            "Did you mean \"ready\"?",
            "wait_for = \"redy\"",
        ),
        (
            format!("{SIDES}  timeouts {{\n    create = \"soon\"\n  }}\n"),
            "create is not a duration",
            "create = \"soon\"",
        ),
        (format!("{SIDES}  generation = 0\n"), "generation cannot be 0", "generation = 0"),
        (
            SIDES.replace("mongodb://b", "mongodb://a"),
            "source and destination are the same deployment",
            "uri = \"mongodb://a\"",
        ),
        (SIDES.replace("source", "sauce"), "Unsupported block type", "sauce {"),
        (
            "  source {\n    uri = \"mongodb://a\"\n  }\n".to_owned(),
            "Missing destination block",
            "\"orders\" {",
        ),
        (
            SIDES.replace(
                "mongodb://a\"",
                "mongodb://a\"\n    username = \"u\"\n    password = { evn = \"A\" }",
            ),
            "Did you mean \"env\"?",
            "password = { evn = \"A\" }",
        ),
        (
            SIDES.replace("mongodb://a", "mongodb://u:hunter2@a"),
            "a password stands in the URI",
            "uri =",
        ),
    ] {
        terraform.write("main.tf", &module(&body)).unwrap();
        let output = terraform.run(["validate"]).await.unwrap();
        ends(&output, 1);
        says(&output, message);
        says(&output, line);
    }
    terraform.write("main.tf", &module(SIDES)).unwrap();
    ends(&terraform.run(["validate"]).await.unwrap(), 0);

    // What is not known yet is no mistake.
    let unknown = module(&SIDES.replace("\"mongodb://a\"", "terraform_data.uri.output"));
    terraform
        .write(
            "main.tf",
            &format!(
                "{unknown}resource \"terraform_data\" \"uri\" {{\n  input = \"mongodb://a\"\n}}\n"
            ),
        )
        .unwrap();
    ends(&terraform.run(["validate"]).await.unwrap(), 0);

    // Plans ask the daemon, and say that it is not there.
    terraform.write("main.tf", &module(SIDES)).unwrap();
    let output = terraform.plan().await.unwrap();
    ends(&output, 1);
    says(
        &output,
        "cannot reach the daemon at unix:///nowhere/cutoverd.sock: no such file [CUT0003]",
    );
    says(&output, "Start cutoverd, or name its socket");
    assert!(!output.stderr.contains("did not respond"), "{output}");
    let left = std::fs::read_dir(terraform.temporary_folder()).unwrap().count();
    assert_eq!(left, 0, "sockets are left behind");
}
