//! The plugin's process from the other side: its handshake, who may talk to it, what it answers to
//! nonsense, and its end.
#![expect(clippy::unwrap_used, reason = "a test fails where something is not as it must be")]

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper_util::rt::TokioIo;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedKey, IsCa, KeyPair, PKCS_ECDSA_P521_SHA512,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use schemas::plugin_protocol::go_plugin::ShutdownRequest;
use schemas::plugin_protocol::go_plugin::grpc_controller_client::GrpcControllerClient;
use schemas::plugin_protocol::tfplugin6 as pb;
use schemas::plugin_protocol::tfplugin6::provider_client::ProviderClient;
use schemas::plugin_protocol::{
    CLIENT_CERTIFICATE_VARIABLE, COOKIE, COOKIE_VARIABLE, VERSIONS_VARIABLE,
};
use tokio::net::UnixStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

/// A certificate as Terraform makes one: an authority's own, of a curve that few use.
fn client_certificate() -> CertifiedKey<KeyPair> {
    let signing_key = KeyPair::generate_for(&PKCS_ECDSA_P521_SHA512).unwrap();
    let mut parameters = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedKey { cert: parameters.self_signed(&signing_key).unwrap(), signing_key }
}

struct Plugin {
    process: Child,
    socket: String,
    /// The plugin's certificate as it told it.
    certificate: String,
    _folder: tempfile::TempDir,
}

impl Plugin {
    fn start(client: Option<&CertifiedKey<KeyPair>>) -> Self {
        let folder = tempfile::Builder::new().prefix("plugin-").tempdir_in("/tmp").unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_terraform-provider-cutover"));
        command
            .env(COOKIE_VARIABLE, COOKIE)
            .env(VERSIONS_VARIABLE, "5,6")
            .env("TMPDIR", folder.path());
        if let Some(client) = client {
            command.env(CLIENT_CERTIFICATE_VARIABLE, client.cert.pem());
        }
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let parts: Vec<&str> = line.trim_end_matches('\n').split('|').collect();
        let [core, protocol, network, socket, transport, certificate] = parts[..] else {
            panic!("{line}")
        };
        assert_eq!((core, protocol, network, transport), ("1", "6", "unix", "grpc"));
        Self {
            process,
            socket: socket.to_owned(),
            certificate: certificate.to_owned(),
            _folder: folder,
        }
    }

    /// A channel over TLS, with a client's certificate or none; it connects with the first call.
    async fn over_tls(
        &self,
        client: Option<&CertifiedKey<KeyPair>>,
    ) -> Result<Channel, tonic::transport::Error> {
        assert!(!self.certificate.contains('='), "the certificate has no padding");
        let padding = "=".repeat((4 - self.certificate.len() % 4) % 4);
        let pem = format!(
            "-----BEGIN CERTIFICATE-----\n{}{padding}\n-----END CERTIFICATE-----\n",
            self.certificate
        );
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap();
        let config = config.with_root_certificates(roots);
        let mut config = match client {
            Some(client) => {
                let key = PrivateKeyDer::Pkcs8(client.signing_key.serialize_der().into());
                config.with_client_auth_cert(vec![client.cert.der().clone()], key).unwrap()
            }
            None => config.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        let connector = TlsConnector::from(Arc::new(config));
        let socket = self.socket.clone();
        let connect = tower::service_fn(move |_| {
            let (connector, socket) = (connector.clone(), socket.clone());
            async move {
                let stream = UnixStream::connect(socket).await?;
                let name = ServerName::try_from("localhost").expect("a name");
                std::io::Result::Ok(TokioIo::new(connector.connect(name, stream).await?))
            }
        });
        Endpoint::from_static("http://plugin.invalid").connect_with_connector(connect).await
    }

    async fn plain(&self) -> Result<Channel, tonic::transport::Error> {
        let socket = self.socket.clone();
        let connect = tower::service_fn(move |_| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        Endpoint::from_static("http://plugin.invalid").connect_with_connector(connect).await
    }

    /// Waits for its end and gives its exit code.
    fn ended(&mut self, patience: Duration) -> Option<i32> {
        let start = Instant::now();
        while start.elapsed() < patience {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        None
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Whether a channel gets an answer.
async fn answers(channel: Result<Channel, tonic::transport::Error>) -> bool {
    let Ok(channel) = channel else { return false };
    let mut provider = ProviderClient::new(channel).max_decoding_message_size(64 << 20);
    provider.get_provider_schema(pb::GetProviderSchemaRequest {}).await.is_ok()
}

#[tokio::test]
async fn only_the_client_whose_certificate_was_given_is_answered() {
    let client = client_certificate();
    let mut plugin = Plugin::start(Some(&client));
    let socket = std::path::Path::new(&plugin.socket);
    let mode =
        |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(socket), mode(socket.parent().unwrap())), (0o600, 0o700));

    assert!(!answers(plugin.plain().await).await, "a caller without TLS");
    assert!(!answers(plugin.over_tls(None).await).await, "a caller without a certificate");
    let other = client_certificate();
    assert!(
        !answers(plugin.over_tls(Some(&other)).await).await,
        "a caller with another certificate of the same name"
    );
    // Somebody who shows the right certificate must have its key, too.
    let stolen = CertifiedKey { cert: client.cert.clone(), signing_key: other.signing_key };
    assert!(
        !answers(plugin.over_tls_unchecked(&stolen).await).await,
        "a caller with the certificate and another key"
    );
    let channel = plugin.over_tls(Some(&client)).await.unwrap();
    assert!(answers(Ok(channel.clone())).await);

    let asked = Instant::now();
    GrpcControllerClient::new(channel).shutdown(ShutdownRequest {}).await.unwrap();
    assert_eq!(plugin.ended(Duration::from_secs(5)), Some(0));
    assert!(
        asked.elapsed() < Duration::from_secs(2),
        "Terraform would have killed it: {:?}",
        asked.elapsed()
    );
    assert!(!std::fs::exists(&plugin.socket).unwrap(), "its socket is left behind");
}

impl Plugin {
    /// As [`Self::over_tls`], with a key that is not the certificate's, which rustls would not
    /// send.
    async fn over_tls_unchecked(
        &self,
        client: &CertifiedKey<KeyPair>,
    ) -> Result<Channel, tonic::transport::Error> {
        #[derive(Debug)]
        struct Sends(Arc<rustls::sign::CertifiedKey>);
        impl rustls::client::ResolvesClientCert for Sends {
            fn resolve(
                &self,
                _: &[&[u8]],
                _: &[rustls::SignatureScheme],
            ) -> Option<Arc<rustls::sign::CertifiedKey>> {
                Some(Arc::clone(&self.0))
            }
            fn has_certs(&self) -> bool {
                true
            }
        }
        let padding = "=".repeat((4 - self.certificate.len() % 4) % 4);
        let pem = format!(
            "-----BEGIN CERTIFICATE-----\n{}{padding}\n-----END CERTIFICATE-----\n",
            self.certificate
        );
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let key = PrivateKeyDer::Pkcs8(client.signing_key.serialize_der().into());
        let key = provider.key_provider.load_private_key(key).unwrap();
        let pair = Arc::new(rustls::sign::CertifiedKey::new(vec![client.cert.der().clone()], key));
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap();
        let mut config =
            config.with_root_certificates(roots).with_client_cert_resolver(Arc::new(Sends(pair)));
        config.alpn_protocols = vec![b"h2".to_vec()];
        let connector = TlsConnector::from(Arc::new(config));
        let socket = self.socket.clone();
        let connect = tower::service_fn(move |_| {
            let (connector, socket) = (connector.clone(), socket.clone());
            async move {
                let stream = UnixStream::connect(socket).await?;
                let name = ServerName::try_from("localhost").expect("a name");
                std::io::Result::Ok(TokioIo::new(connector.connect(name, stream).await?))
            }
        });
        Endpoint::from_static("http://plugin.invalid").connect_with_connector(connect).await
    }
}

fn packed(msgpack: &[u8]) -> Option<pb::DynamicValue> {
    Some(pb::DynamicValue { msgpack: msgpack.to_vec(), json: Vec::new() })
}

#[tokio::test]
async fn nonsense_is_answered_with_diagnostics() {
    let plugin = Plugin::start(None);
    assert_eq!(plugin.certificate, "");
    let mut provider =
        ProviderClient::new(plugin.plain().await.unwrap()).max_decoding_message_size(64 << 20);
    // Truncated, of wrong types, nested without end, unknown as a whole, no object.
    let deep = vec![0x91; 100_000];
    let nonsense: [&[u8]; 7] = [
        &[0xc4, 1, 0],
        &[0x85],
        &[0x93, 1, 2, 3],
        &deep,
        &[0xd4, 0, 0],
        &[0xa1, b'x'],
        &[0x81, 0xa4, b'n', b'a', b'm', b'e', 0xc0],
    ];
    for bytes in nonsense {
        let type_name = "cutover_migration".to_owned();
        let config = packed(bytes);
        let validated = provider
            .validate_resource_config(pb::ValidateResourceConfigRequest {
                type_name: type_name.clone(),
                config: config.clone(),
                client_capabilities: None,
            })
            .await
            .unwrap();
        let unknown = bytes == [0xd4, 0, 0];
        assert!(unknown || !validated.into_inner().diagnostics.is_empty(), "{bytes:?}");
        let planned = provider
            .plan_resource_change(pb::PlanResourceChangeRequest {
                type_name: type_name.clone(),
                prior_state: packed(&[0xc0]),
                proposed_new_state: config.clone(),
                config: config.clone(),
                prior_private: vec![0xff, 1],
            })
            .await
            .unwrap();
        let shown = &bytes[..bytes.len().min(9)];
        assert!(unknown || !planned.into_inner().diagnostics.is_empty(), "{shown:?}");
        let applied = provider
            .apply_resource_change(pb::ApplyResourceChangeRequest {
                type_name: type_name.clone(),
                prior_state: packed(&[0xc0]),
                planned_state: config.clone(),
                config: config.clone(),
                planned_private: vec![0xff, 1],
            })
            .await
            .unwrap();
        assert!(!applied.into_inner().diagnostics.is_empty(), "{shown:?}");
        let raw_state = Some(pb::RawState { json: bytes.to_vec(), flatmap: [].into() });
        let upgraded = provider
            .upgrade_resource_state(pb::UpgradeResourceStateRequest {
                type_name,
                version: 9,
                raw_state,
            })
            .await
            .unwrap();
        assert!(!upgraded.into_inner().diagnostics.is_empty());
    }
    let other = provider
        .read_data_source(pb::ReadDataSourceRequest {
            type_name: "cutover_nothing".to_owned(),
            config: packed(&[0x80]),
        })
        .await
        .unwrap();
    assert!(other.into_inner().diagnostics[0].summary.contains("no data source cutover_nothing"));
}

#[tokio::test]
async fn a_stored_state_of_another_schema_is_taken_as_far_as_it_goes() {
    let plugin = Plugin::start(None);
    let mut provider =
        ProviderClient::new(plugin.plain().await.unwrap()).max_decoding_message_size(64 << 20);
    let json = br#"{"name": "orders", "generation": "two", "gone": 1,
        "source": {"uri": "mongodb://a", "gone": {}}, "window": {"extensions": 1}}"#;
    let request = pb::UpgradeResourceStateRequest {
        type_name: "cutover_migration".to_owned(),
        version: 0,
        raw_state: Some(pb::RawState { json: json.to_vec(), flatmap: [].into() }),
    };
    let upgraded = provider.upgrade_resource_state(request).await.unwrap().into_inner();
    assert_eq!(upgraded.diagnostics, []);
    let state =
        rmpv::decode::read_value(&mut upgraded.upgraded_state.unwrap().msgpack.as_slice()).unwrap();
    assert_eq!(state["name"].as_str(), Some("orders"));
    assert!(state["generation"].is_nil() && state["gone"].is_nil() && state["cutover"].is_nil());
    assert_eq!(state["source"]["uri"].as_str(), Some("mongodb://a"));
    assert_eq!(state["window"]["extensions"].as_str(), Some("1"), "numbers go in digits");
    assert_eq!(state["window"].as_map().unwrap().len(), 3, "every attribute is written out");
}

#[tokio::test]
async fn an_interrupt_is_terraforms_to_handle() {
    let mut plugin = Plugin::start(None);
    let pid = rustix::process::Pid::from_child(&plugin.process);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(plugin.ended(Duration::from_millis(300)), None);
    assert!(answers(plugin.plain().await).await);
}

#[test]
fn a_person_gets_help_and_another_protocol_a_reason() {
    let program = env!("CARGO_BIN_EXE_terraform-provider-cutover");
    let output = Command::new(program).env_remove(COOKIE_VARIABLE).output().unwrap();
    assert!(!output.status.success());
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("terraform-provider-cutover <COMMAND>")
    );
    let output = Command::new(program)
        .env(COOKIE_VARIABLE, COOKIE)
        .env(VERSIONS_VARIABLE, "4,5")
        .output()
        .unwrap();
    assert!(!output.status.success() && output.stdout.is_empty());
    assert!(String::from_utf8_lossy(&output.stderr).contains("this plugin speaks protocol 6"));
}
