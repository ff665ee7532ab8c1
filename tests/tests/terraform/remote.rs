//! A daemon on another machine.

use std::path::Path;

use rig::ports::ReservedPort;
use rig::tls::TlsFiles;
use rig::{Cutoverd, Terraform, cutoverd};

use crate::scene::{ends, provider, says};

#[tokio::test]
async fn a_daemon_on_another_machine_is_asked_over_mutual_tls() {
    let folder = tempfile::tempdir().unwrap();
    let files = TlsFiles::write(folder.path()).unwrap();
    let port = ReservedPort::take().unwrap();
    let _daemon = Cutoverd::start(cutoverd::Config::default().listen_tls(port.number(), &files))
        .await
        .unwrap();
    let mut terraform = Terraform::new().await.unwrap();
    let module = |certificate: &Path| {
        let tls = format!(
            "  tls {{\n    ca_file = {:?}\n    certificate_key_file = {certificate:?}\n  }}\n",
            files.ca_file
        );
        let block = provider(&format!("tcp://localhost:{}", port.number()))
            .replace("  workspace", &format!("{tls}  workspace"));
        format!("{block}data \"cutover_migration\" \"orders\" {{\n  name = \"orders\"\n}}\n")
    };

    // The daemon answers: it knows no such migration.
    terraform.write("main.tf", &module(&files.client_file)).unwrap();
    let output = terraform.plan().await.unwrap();
    says(&output, "CUT0008");
    // And it does not answer whom it does not know.
    let other = tempfile::tempdir().unwrap();
    let strangers = TlsFiles::write(other.path()).unwrap();
    terraform.write("main.tf", &module(&strangers.client_file)).unwrap();
    let output = terraform.plan().await.unwrap();
    ends(&output, 1);
    says(&output, "refuses this caller's certificate");
    assert!(!output.stderr.contains("did not respond"), "{output}");
    // The environment serves where the block says nothing.
    let block = provider(&format!("tcp://localhost:{}", port.number()));
    terraform
        .write(
            "main.tf",
            &format!("{block}data \"cutover_migration\" \"orders\" {{\n  name = \"orders\"\n}}\n"),
        )
        .unwrap();
    let output = terraform.plan().await.unwrap();
    ends(&output, 1);
    says(&output, "CUTOVER_TLS_CA_FILE");
    terraform.set("CUTOVER_TLS_CA_FILE", files.ca_file.display().to_string());
    terraform.set("CUTOVER_TLS_CERTIFICATE_KEY_FILE", files.client_file.display().to_string());
    says(&terraform.plan().await.unwrap(), "CUT0008");
}
