//! `cutoverd`: reads how it is to run, starts the daemon, and stops it on SIGTERM or SIGINT.

use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser as _;
use daemon::config::{Command, Config};
use daemon::daemon::{Daemon, TestHooks};
use daemon::engine::Engine;
use daemon::engine::run::MongoEngine;
use daemon::memory::Memory;
use daemon::unblock::unblock;
use schemas::fault::{Fault, FaultCode};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let config = match Config::try_parse() {
        Ok(config) => config,
        Err(error) => {
            // Nobody is left to tell where the output is closed.
            let _ = error.print();
            // Help and version are answers; a mistake is an error like any other.
            return if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    };
    let gives_back = heap::give_back_large_blocks();
    // Whatever this process makes is its owner's alone.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let result = log(&config.log).and_then(|()| {
        if !gives_back {
            tracing::debug!(
                "the allocator keeps what is freed: memory may grow past what is in use"
            );
        }
        daemon::connections::raise_descriptors();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|error| {
                Fault::new(FaultCode::Internal, format!("failed to start threads: {error}"))
            })?;
        let result = match &config.command {
            None => runtime.block_on(serve(&config)),
            Some(Command::Unblock(options)) => {
                runtime.block_on(unblock(options, &config.state_dir)).map(|text| {
                    use std::io::Write as _;
                    // Nobody is left to tell where the output is closed.
                    let _ = std::io::stdout().write_all(text.as_bytes());
                })
            }
        };
        // A name that does not resolve or a server that does not answer must not hold up the exit.
        runtime.shutdown_background();
        result
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            use std::io::Write as _;
            // Nobody is left to tell where stderr is closed.
            let _ = writeln!(
                std::io::stderr(),
                "error[{}]: {}\n  remedy: {}",
                fault.code,
                fault.message,
                fault.remedy
            );
            ExitCode::FAILURE
        }
    }
}

fn log(filter: &str) -> Result<(), Fault> {
    let filter = EnvFilter::try_new(filter).map_err(|error| {
        Fault::new(
            FaultCode::InvalidConfiguration,
            format!("--log {filter:?} is no filter: {error}"),
        )
        .with_remedy("write it like info, debug or daemon=debug,warn")
    })?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    Ok(())
}

async fn serve(config: &Config) -> Result<(), Fault> {
    let no_signals = |error: std::io::Error| {
        Fault::new(FaultCode::Internal, format!("failed to wait for signals: {error}"))
    };
    let mut terminate = signal(SignalKind::terminate()).map_err(no_signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(no_signals)?;
    let memory = Memory::of_mb(config.memory_mb)?;
    let engine: Arc<dyn Engine> = Arc::new(MongoEngine { memory, ..MongoEngine::default() });
    let mut daemon = Daemon::start(config, engine, TestHooks::from_environment()?).await?;
    let result = tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        fault = daemon.failed() => Err(fault),
    };
    daemon.stop().await;
    result
}
