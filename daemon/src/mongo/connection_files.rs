//! The files that connections are made with, and whether they are still what they were: a secret
//! that was replaced is to be used without a restart.

use std::path::Path;
use std::time::Duration;

use schemas::fault::{Fault, FaultCode};
use schemas::spec::{ConnectionSpec, MigrationSpec, SecretRef, sha256_hex};

/// How often they are looked at: a mounted secret is replaced rarely, and its old value most often
/// works for a while.
const LOOK_EVERY: Duration = Duration::from_secs(3);

/// The digest of the contents of every file that a migration's connections are made with; `None`
/// where there is no such file.
#[must_use]
pub fn digest(spec: &MigrationSpec) -> Option<String> {
    let files: Vec<&Path> = [&spec.source.connection, &spec.destination.connection]
        .into_iter()
        .flat_map(of_side)
        .collect();
    if files.is_empty() {
        return None;
    }
    // One that cannot be read has a digest, too: it may be readable later.
    let contents = files.iter().map(|file| {
        std::fs::read(file).map_or_else(|_| String::new(), |content| sha256_hex(&content))
    });
    Some(contents.collect::<Vec<_>>().join(" "))
}

fn of_side(connection: &ConnectionSpec) -> impl Iterator<Item = &Path> {
    let password = match &connection.password {
        Some(SecretRef::File(path)) => Some(path.as_path()),
        Some(SecretRef::Env(_)) | None => None,
    };
    let tls = connection.tls.as_ref();
    let ca = tls.and_then(|tls| tls.ca_file.as_deref());
    let key = tls.and_then(|tls| tls.certificate_key_file.as_deref());
    password.into_iter().chain(ca).chain(key)
}

/// Waits until they are not what they were when `began` was taken, and gives that as a fault that
/// is got over by connecting anew.
pub async fn changed(spec: &MigrationSpec, began: Option<String>) -> Fault {
    if began.is_none() {
        return std::future::pending().await;
    }
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        if digest(spec) != began {
            let message = "a file with a password, an authority or a certificate of the \
                 connections has changed";
            return Fault { retryable: true, ..Fault::new(FaultCode::Unreachable, message) }
                .with_remedy("nothing is to be done: the daemon connects anew with it");
        }
    }
}

#[cfg(test)]
mod tests {
    use schemas::spec::{MigrationSpec, TlsSpec};

    use super::{changed, digest};

    fn spec(folder: &std::path::Path) -> MigrationSpec {
        let hcl = format!(
            r#"migration "orders" {{
  source {{
    uri      = "mongodb://a/?replicaSet=a"
    username = "migrator"
    password = {{ file = "{}/password" }}
  }}
  destination {{
    uri = "mongodb://b/?replicaSet=b"
  }}
}}"#,
            folder.display()
        );
        let file = schemas::hcl::File { name: "main.hcl".to_owned(), text: hcl };
        let declared =
            schemas::hcl::load_texts(folder, vec![file], &schemas::hcl::Inputs::default())
                .expect("it loads");
        declared.migrations.into_values().next().expect("one").spec
    }

    #[tokio::test]
    async fn a_replaced_file_is_noticed_whichever_it_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut spec = spec(folder.path());
        spec.destination.connection.tls = Some(TlsSpec {
            ca_file: Some(folder.path().join("ca.pem")),
            certificate_key_file: None,
        });
        let (password, ca) = (folder.path().join("password"), folder.path().join("ca.pem"));
        std::fs::write(&password, "one").expect("writes");
        let began = digest(&spec);
        assert_eq!(digest(&spec), began);
        std::fs::write(&ca, "an authority").expect("writes");
        assert_ne!(digest(&spec), began);
        let began = digest(&spec);
        std::fs::write(&password, "two").expect("writes");
        assert!(changed(&spec, began.clone()).await.retryable);
        assert_ne!(digest(&spec), began);
    }

    #[test]
    fn a_migration_without_files_has_nothing_to_look_at() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut spec = spec(folder.path());
        spec.source.connection.password = None;
        assert_eq!(digest(&spec), None);
    }
}
