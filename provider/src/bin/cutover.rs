//! The `cutover` program: reads the command line, runs the command, and ends with its exit code.

use clap::Parser as _;
use provider::cli::Cli;
use provider::command;
use provider::exit_code::ExitCode;
use provider::output::Output;

fn main() -> std::process::ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(usage) => {
            // Help and the version are results; anything else is an error, whose code must not be
            // taken for drift.
            let code = if usage.use_stderr() { ExitCode::Error } else { ExitCode::Done };
            let _ = usage.print();
            return code.into();
        }
    };
    let output = Output::standard();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            output.message(&format!("error: failed to start: {error}\n"));
            return ExitCode::Error.into();
        }
    };
    runtime.block_on(command::run(cli, output)).into()
}
