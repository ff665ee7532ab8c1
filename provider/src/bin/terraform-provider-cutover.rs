//! The `terraform-provider-cutover` program: Terraform starts it; started by a person, it does what packaging needs.

use provider::terraform;

fn main() -> std::process::ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            provider::output::Output::standard().message(&format!("error: failed to start: {error}\n"));
            return std::process::ExitCode::FAILURE;
        }
    };
    if !terraform::is_plugin() {
        return std::process::ExitCode::FAILURE;
    }
    match runtime.block_on(terraform::serve()) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(_) => std::process::ExitCode::FAILURE,
    }
}
