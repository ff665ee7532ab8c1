//! How the provider gets to Terraform: a mirror, a debugger, and without TLS.

use std::process::Stdio;

use rig::Terraform;
use rig::programs::programs;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

use crate::scene::{ends, provider, says};

const BODY: &str = "resource \"cutover_migration\" \"orders\" {\n  name = \"orders\"\n  source \
     {\n    uri = \"mongodb://a\"\n  }\n  \
                    destination {\n    uri = \"mongodb://b\"\n  }\n}\n";

const NOWHERE: &str = "unix:///nowhere/cutoverd.sock";

#[tokio::test]
async fn terraform_installs_the_provider_from_the_mirror_that_it_makes() {
    let program =
        tokio::task::spawn_blocking(programs).await.unwrap().unwrap().terraform_provider.clone();
    let folder = tempfile::tempdir().unwrap();
    let made = Command::new(program).arg("mirror").arg(folder.path()).output().await.unwrap();
    assert!(made.status.success(), "{made:?}");
    let configuration = format!(
        "disable_checkpoint = true\nprovider_installation {{\n  filesystem_mirror {{\n    path = \
         {:?}\n    include = \
         [\"cutover-dev/cutover\"]\n  }}\n  direct {{\n    exclude = [\"*/*\"]\n  }}\n}}\n",
        folder.path()
    );
    let terraform = Terraform::with_configuration(&configuration).unwrap();
    terraform.write("main.tf", &format!("{}{BODY}", provider(NOWHERE))).unwrap();
    let output = terraform.run(["init"]).await.unwrap();
    ends(&output, 0);
    says(&output, &format!("Installed cutover-dev/cutover v{}", env!("CARGO_PKG_VERSION")));
    ends(&terraform.run(["validate"]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_debugger_serves_terraform() {
    let program =
        tokio::task::spawn_blocking(programs).await.unwrap().unwrap().terraform_provider.clone();
    let mut serving = Command::new(program)
        .arg("debug")
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(serving.stdout.as_mut().unwrap()).read_line(&mut line).await.unwrap();
    let reattach = line
        .trim()
        .strip_prefix("TF_REATTACH_PROVIDERS='")
        .and_then(|rest| rest.strip_suffix('\''))
        .unwrap();
    let terraform = Terraform::with_configuration("disable_checkpoint = true\n").unwrap();
    let terraform = terraform.env("TF_REATTACH_PROVIDERS", reattach);
    terraform.write("main.tf", &format!("{}{BODY}", provider(NOWHERE))).unwrap();
    for _ in 0..2 {
        let output = terraform.plan().await.unwrap();
        ends(&output, 1);
        says(&output, "cannot reach the daemon at unix:///nowhere/cutoverd.sock");
    }
    assert!(serving.try_wait().unwrap().is_none(), "it serves on");
}

#[tokio::test]
async fn terraform_can_do_without_tls() {
    let terraform = Terraform::new().await.unwrap().env("TF_DISABLE_PLUGIN_TLS", "1");
    terraform.write("main.tf", &format!("{}{BODY}", provider(NOWHERE))).unwrap();
    ends(&terraform.run(["validate"]).await.unwrap(), 0);
}

#[tokio::test]
async fn the_examples_are_valid() {
    let terraform = Terraform::new().await.unwrap();
    for name in ["main.tf", "preflight.tf", "sharded.tf"] {
        let example = rig::programs::workspace_folder().join("examples/terraform").join(name);
        terraform.write(name, &std::fs::read_to_string(example).unwrap()).unwrap();
    }
    ends(&terraform.run(["validate"]).await.unwrap(), 0);
    ends(&terraform.run(["fmt", "-check"]).await.unwrap(), 0);
}
