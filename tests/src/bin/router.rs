//! The stand-in for `mongos` as a program, with those of its arguments that the rig uses.

use anyhow::{Context as _, Result, bail};
use rig::mongos::RouterTls;

fn main() -> Result<()> {
    let (mut config, mut key, mut port, mut address) = (None, None, None, "127.0.0.1".to_owned());
    let (mut ca_file, mut certificate_key_file) = (None, None);
    let (mut hides_shards, mut clients_without_certificates, mut invalid_hostnames) =
        (false, false, false);
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let switch = match name.as_str() {
            "--hideShards" => Some(&mut hides_shards),
            "--tlsAllowConnectionsWithoutCertificates" => Some(&mut clients_without_certificates),
            "--tlsAllowInvalidHostnames" => Some(&mut invalid_hostnames),
            _ => None,
        };
        if let Some(switch) = switch {
            *switch = true;
            continue;
        }
        let value = arguments.next().with_context(|| format!("{name} wants a value"))?;
        match name.as_str() {
            "--configdb" => config = Some(value),
            "--port" => port = Some(value.parse::<u16>().context("--port")?),
            "--bind_ip" => address = value,
            "--keyFile" => key = Some(std::fs::read_to_string(&value).context("--keyFile")?),
            "--tlsMode" if value == "requireTLS" => {}
            "--tlsCAFile" => ca_file = Some(value),
            "--tlsCertificateKeyFile" => certificate_key_file = Some(value),
            _ => bail!(
                "{name} is not known: usage: router --configdb SET/HOST:PORT --port PORT \
                 [--bind_ip ADDRESS] [--keyFile FILE] [--tlsMode requireTLS --tlsCAFile FILE \
                 --tlsCertificateKeyFile FILE [--tlsAllowConnectionsWithoutCertificates] \
                 [--tlsAllowInvalidHostnames]] [--hideShards]"
            ),
        }
    }
    let (config, port) =
        (config.context("--configdb is missing")?, port.context("--port is missing")?);
    let tls = match (ca_file, certificate_key_file) {
        (Some(ca_file), Some(certificate_key_file)) => Some(RouterTls {
            ca_file: ca_file.into(),
            certificate_key_file: certificate_key_file.into(),
            clients_without_certificates,
            invalid_hostnames,
        }),
        (None, None) => None,
        _ => bail!("--tlsCAFile and --tlsCertificateKeyFile go together"),
    };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind((address.as_str(), port)).await;
        let listener = match listener {
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
                std::process::exit(rig::mongos::EXIT_ADDRESS_IN_USE)
            }
            listener => listener.context("failed to listen")?,
        };
        rig::mongos::serve(listener, &config, key.as_deref(), tls.as_ref(), hides_shards).await
    })
}
