//! The `terraform-provider-cutover` program: Terraform starts it; started by a person, it does what
//! installing needs.

use clap::Parser as _;
use provider::exit_code::{ExitCode, Failure};
use provider::output::Output;
use provider::render::diagnostics;
use provider::terraform::{self, Program};

fn main() -> std::process::ExitCode {
    let output = Output::standard();
    // Terraform passes no arguments, and nobody else passes its cookie.
    let program = (!terraform::is_plugin()).then(Program::parse);
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            output.message(&format!("error: failed to start: {error}\n"));
            return ExitCode::Error.into();
        }
    };
    let outcome = runtime.block_on(async {
        match program {
            Some(program) => program.run(&output).await,
            None => terraform::serve().await.map_err(Failure::from),
        }
    });
    // What still runs in the background must not hold the end up: Terraform waits for it.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::Done.into(),
        Err(failure) => {
            if let Failure::Fault(fault) = &failure {
                output.message(&diagnostics::fault(fault, output.messages));
            }
            failure.exit_code().into()
        }
    }
}
