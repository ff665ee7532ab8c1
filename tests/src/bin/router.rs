//! The stand-in for `mongos` as a program, with those of its arguments that the rig uses.

use anyhow::{Context as _, Result, bail};

fn main() -> Result<()> {
    let (mut config, mut key, mut port, mut address) = (None, None, None, "127.0.0.1".to_owned());
    let mut hides_shards = false;
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        if name == "--hideShards" {
            hides_shards = true;
            continue;
        }
        let value = arguments.next().with_context(|| format!("{name} wants a value"))?;
        match name.as_str() {
            "--configdb" => config = Some(value),
            "--port" => port = Some(value.parse::<u16>().context("--port")?),
            "--bind_ip" => address = value,
            "--keyFile" => key = Some(std::fs::read_to_string(&value).context("--keyFile")?),
            _ => bail!(
                "{name} is not known: usage: router --configdb SET/HOST:PORT --port PORT [--bind_ip ADDRESS] [--keyFile FILE] \
                 [--hideShards]"
            ),
        }
    }
    let (config, port) = (config.context("--configdb is missing")?, port.context("--port is missing")?);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind((address.as_str(), port)).await;
        let listener = match listener {
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => std::process::exit(rig::router::EXIT_ADDRESS_IN_USE),
            listener => listener.context("failed to listen")?,
        };
        rig::router::serve(listener, &config, key.as_deref(), hides_shards).await
    })
}
