//! What a declaration passes the daemon takes, and the reverse; and what is wrong is said in the
//! daemon's own words.

use std::path::Path;

use mongodb::options::{AuthMechanism, Tls};
use schemas::fault::FaultCode;
use schemas::hcl::uri::{KNOWN, Meaning, Value};
use schemas::hcl::{File, Inputs, load_texts};
use schemas::spec::{ConnectionSpec, SecretRef};

use super::{client_options, resolve_secret};
use crate::mongo::Side;

/// A block with a connection, and the same as a spec that no declaration has looked at.
struct Case {
    uri: String,
    username: Option<&'static str>,
    password: bool,
    tls: Option<Option<String>>,
}

impl Case {
    fn of(uri: impl Into<String>) -> Self {
        Self { uri: uri.into(), username: None, password: false, tls: None }
    }

    fn user(uri: &str) -> Self {
        Self { username: Some("migrator"), password: true, ..Self::of(uri) }
    }

    fn is_declared(&self, folder: &Path) -> bool {
        let mut block = format!("uri = {:?}\n", self.uri);
        if let Some(name) = self.username {
            block += &format!("username = {name:?}\n");
        }
        if self.password {
            block +=
                &format!("password = {{ file = \"{}\" }}\n", folder.join("password").display());
        }
        if let Some(key) = &self.tls {
            let key = key
                .as_ref()
                .map(|key| format!("certificate_key_file = {key:?}\n"))
                .unwrap_or_default();
            block += &format!("tls {{\n{key}}}\n");
        }
        let destination = "destination {\nuri = \"mongodb://other/?replicaSet=other\"\n}\n";
        let text = format!("migration \"orders\" {{\nsource {{\n{block}}}\n{destination}}}\n");
        load_texts(folder, vec![File { name: "main.hcl".to_owned(), text }], &Inputs::default())
            .is_ok()
    }

    fn spec(&self, folder: &Path) -> ConnectionSpec {
        ConnectionSpec {
            uri: self.uri.clone(),
            username: self.username.map(str::to_owned),
            password: self.password.then(|| SecretRef::File(folder.join("password"))),
            tls: self.tls.as_ref().map(|key| schemas::spec::TlsSpec {
                ca_file: None,
                certificate_key_file: key.as_ref().map(Into::into),
            }),
        }
    }
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("password"), "secret\n").expect("writes");
    folder
}

/// Words that only the driver has.
const OF_DRIVER: [&str; 8] = [
    "{key}",
    "connection string",
    "Rust driver",
    "feature",
    "seeds",
    "No username",
    "invalid option",
    "repeated options",
];

#[tokio::test]
async fn what_is_declared_is_taken_and_what_is_refused_is_refused_in_our_words() {
    let folder = folder();
    let file = tls_file(folder.path());
    let key = file.display();
    let mut cases: Vec<Case> = Vec::new();
    for known in KNOWN {
        let values = match known.meaning {
            Meaning::Used(Value::File(_)) => vec![format!("{key}"), "relative.pem".to_owned()],
            _ => [
                "true",
                "false",
                "1",
                "0",
                "500",
                "-1",
                "x",
                "",
                "a%2Cb",
                "a%",
                "DEFAULT",
                "scram-sha-256",
                "PLAIN",
                "GSSAPI",
                "majority",
            ]
            .map(str::to_owned)
            .to_vec(),
        };
        for value in values {
            let pair = format!("{}={value}", known.name);
            let small = format!("{}={value}", known.name.to_lowercase());
            cases.push(Case::of(format!("mongodb://h/?{pair}")));
            cases.push(Case::user(&format!("mongodb://h/?{small}&replicaSet=rs")));
            cases.push(Case::user(&format!("mongodb://h:1,i:2/db?{pair}&{small}&tls=true")));
            cases.push(Case::of(format!("mongodb://h/?tls=false&{pair}")));
            cases.push(Case {
                tls: Some(Some(key.to_string())),
                ..Case::of(format!("mongodb://h/?authMechanism=MONGODB-X509&{pair}"))
            });
        }
    }
    for uri in [
        "mongodb://h/?ssl=true&tls=true",
        "mongodb://h/?ssl=true&tls=false",
        "mongodb://h/?replicaSet=a&replicaset=b",
        "mongodb://h/?nonsense=1",
        "mongodb://[::1]:27018/?replicaSet=rs%20a",
        "mongodb://%2Ftmp%2Fa.sock",
        "mongodb://u%40x@h/d%25b",
        "mongodb://h/?readPreference=secondary&maxStalenessSeconds=1&w=0&journal=true",
        "mongodb://h/?srvMaxHosts=1",
        "mongodb://h/?tlsInsecure=true&tlsAllowInvalidCertificates=true",
        "mongodb://h/?tlsInsecure=false&tls=false",
        "mongodb://h/?maxPoolSize=0&minPoolSize=7",
        "mongodb://h/?authMechanism=SCRAM-SHA-256",
        "mongodb://h/?authSource=admin",
        "mongodb://h/?",
        "mongodb://h?replicaSet=rs",
        "mongodb://h/?&&replicaSet=rs&",
        "mongodb://h/?a=b;c=d",
        "mongodb://h,i/?directConnection=true",
    ] {
        cases.push(Case::of(uri));
        cases.push(Case::user(uri));
        cases.push(Case { tls: Some(None), ..Case::user(uri) });
        cases.push(Case { password: false, ..Case::user(uri) });
    }
    let mut taken = 0;
    for case in &cases {
        let declared = case.is_declared(folder.path());
        match client_options(Side::Source, &case.spec(folder.path()), None).await {
            Ok(_) => {
                taken += 1;
                assert!(declared, "{} is taken and not declared", case.uri);
            }
            Err(fault) => {
                assert!(!declared, "{} is declared and not taken: {fault:?}", case.uri);
                assert_eq!(fault.code, FaultCode::InvalidConfiguration, "{}: {fault:?}", case.uri);
                assert!(fault.message.starts_with("the source: "), "{}: {fault:?}", case.uri);
                assert!(
                    !OF_DRIVER.iter().any(|word| fault.message.contains(word)),
                    "{}: {fault:?}",
                    case.uri
                );
            }
        }
    }
    assert!(taken > 200 && taken < cases.len() - 200, "{taken} of {} are taken", cases.len());
}

/// A file with a certificate and its key.
fn tls_file(folder: &Path) -> std::path::PathBuf {
    let files = rig::tls::TlsFiles::write(folder).expect("certificates");
    files.client_file
}

#[tokio::test]
async fn who_logs_on_is_found_in_the_string_and_beside_it() {
    let folder = folder();
    let options = async |case: Case| {
        client_options(Side::Source, &case.spec(folder.path()), None).await.expect("it is taken")
    };
    for (uri, mechanism, source) in [
        ("mongodb://h/?authMechanism=SCRAM-SHA-256", Some(AuthMechanism::ScramSha256), "admin"),
        (
            "mongodb://h/?authmechanism=scram-sha-1&AUTHSOURCE=d%25b",
            Some(AuthMechanism::ScramSha1),
            "d%b",
        ),
        ("mongodb://h/?authMechanism=DEFAULT&authSource=d%25b", None, "d%b"),
        ("mongodb://h/d%25b", None, "d%b"),
        ("mongodb://migrator@h/first?authSource=second", None, "second"),
        ("mongodb://h", None, "admin"),
        ("mongodb://h/?tls=true&authMechanism=PLAIN", Some(AuthMechanism::Plain), "$external"),
    ] {
        let credential = options(Case::user(uri)).await.credential.expect("somebody logs on");
        assert_eq!(credential.username.as_deref(), Some("migrator"), "{uri}");
        assert_eq!(credential.password.as_deref(), Some("secret"), "{uri}");
        assert_eq!(
            (credential.mechanism, credential.source.as_deref()),
            (mechanism, Some(source)),
            "{uri}"
        );
    }
    let escaped = Case { password: true, ..Case::of("mongodb://u%40x%2F@h") };
    assert_eq!(
        options(escaped).await.credential.expect("somebody").username.as_deref(),
        Some("u@x/")
    );
    assert!(options(Case::of("mongodb://h/?authSource=x")).await.credential.is_none());
    let without = options(Case::of(
        "mongodb://h/?w=0&readPreference=secondary&retryWrites=false&appName=mine&compressors=zstd&\
         uuidRepresentation=standard&ssl=true&\
         tls=true&socketTimeoutMS=1",
    ))
    .await;
    assert!(
        without.write_concern.is_none()
            && without.selection_criteria.is_none()
            && without.retry_writes.is_none()
    );
    assert_eq!(without.app_name.as_deref(), Some("cutover"));
    assert!(matches!(without.tls, Some(Tls::Enabled(_))));
}

#[tokio::test]
async fn files_of_tls_are_told_by_what_is_in_them() {
    let folder = folder();
    let file = tls_file(folder.path());
    let good = std::fs::read_to_string(&file).expect("reads");
    let bad = folder.path().join("bad.pem");
    std::fs::write(&bad, format!("\u{feff}{good}")).expect("writes");
    let mut of_block = Case { tls: Some(None), ..Case::of("mongodb://h") }.spec(folder.path());
    of_block.tls.as_mut().expect("a block").ca_file = Some(bad.clone());
    let in_uri = Case::of(format!("mongodb://h/?tlsCertificateKeyFile={}", bad.display()))
        .spec(folder.path());
    for (spec, name) in [(of_block, "tls.ca_file"), (in_uri, "tlsCertificateKeyFile")] {
        let fault = client_options(Side::Source, &spec, None).await.expect_err("it is refused");
        assert_eq!(fault.code, FaultCode::TlsFailed);
        assert!(
            fault.message.contains("byte order mark") && fault.message.contains(name),
            "{fault:?}"
        );
    }
}

#[test]
fn all_line_ends_after_a_password_are_cut_and_what_is_none_is_named() {
    let folder = folder();
    let file = folder.path().join("password");
    let read = |content: &[u8]| {
        std::fs::write(&file, content).expect("writes");
        resolve_secret(&SecretRef::File(file.clone()))
    };
    for content in
        ["pass word", "pass word\n", "pass word\r\n", "pass word\n\n", "pass word\r\n\r\n\n"]
    {
        assert_eq!(read(content.as_bytes()).expect("a password"), "pass word", "{content:?}");
    }
    assert_eq!(read(b" ends in a space ").expect("a password"), " ends in a space ");
    for (content, what) in [
        (b"".as_slice(), "is empty"),
        (b"\n\r\n", "is empty"),
        (b"a\nb", "a line end in it, as its character number 2"),
        (b"a\tb", "a tabulator"),
        (b"ab\x00", "U+0000"),
        (b"\xef\xbb\xbfpassword", "byte order mark"),
        (b"\xff", "no text in UTF-8"),
        (&[b'x'; 70_000], "longer than any password"),
    ] {
        let fault = read(content).expect_err("it is none");
        assert_eq!(fault.code, FaultCode::SecretUnavailable);
        assert!(
            fault.message.contains(what) && fault.message.contains("password"),
            "{fault:?}, not {what:?}"
        );
    }
}
