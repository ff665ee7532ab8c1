//! One migration from beginning to end, on this machine: two real replica sets, an application that
//! keeps writing, the real daemon and command line, a cutover that waits for its acknowledgement,
//! and a comparison of every document at the end.
//!
//! `cargo run --release -p demo`, or with `-- --yes` to acknowledge without being asked.

mod acknowledgement;
mod options;
mod progress;
mod stage;
mod story;

use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

use crate::options::{Invocation, USAGE};

/// What shells report for a program that was interrupted.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    let options = match options::parse(std::env::args().skip(1)) {
        Ok(Invocation::Run(options)) => options,
        Ok(Invocation::Help) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(message) => {
            eprintln!("{message}\n\n{USAGE}");
            return ExitCode::FAILURE;
        }
    };
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("failed to start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(async {
        tokio::select! {
            // Whatever was started lives inside the story: leaving it ends all processes and
            // removes their files.
            outcome = story::tell(options) => match outcome {
                Ok(true) => ExitCode::SUCCESS,
                Ok(false) => ExitCode::FAILURE,
                Err(error) => {
                    eprintln!("\nthe demo failed: {error:#}");
                    ExitCode::FAILURE
                }
            },
            () = interrupted() => {
                eprintln!("\ninterrupted: everything the demo started is stopped and removed");
                ExitCode::from(INTERRUPTED)
            }
        }
    });
    // A thread may still wait for an answer on standard input.
    runtime.shutdown_background();
    code
}

async fn interrupted() {
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
