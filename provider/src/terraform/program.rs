//! What the program does when a person starts it.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};
use schemas::fault::{Fault, FaultCode};

use super::catalog::ADDRESS;
use super::{docs, mirror, serve};
use crate::exit_code::Failure;
use crate::output::Output;

/// The Terraform and OpenTofu provider of cutover. Terraform starts it by itself; these commands
/// are for installing it.
#[derive(Debug, Parser)]
#[command(name = "terraform-provider-cutover", version)]
pub struct Program {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a filesystem mirror of this program, from which `terraform init` installs it.
    Mirror {
        /// The mirror's folder, such as ~/.terraform.d/plugins.
        folder: PathBuf,
    },
    /// Write the documentation's pages, in the registry's format.
    Docs {
        /// Their folder.
        folder: PathBuf,
    },
    /// Serve a Terraform that is told where by TF_REATTACH_PROVIDERS, until an interrupt.
    Debug,
}

impl Program {
    /// Does what was asked for.
    pub async fn run(self, output: &Output) -> Result<(), Failure> {
        match self.command {
            Command::Mirror { folder } => {
                let made =
                    std::env::current_exe().and_then(|program| mirror::mirror(&program, &folder));
                for path in made.map_err(|error| unwritten(&folder, &error))? {
                    output.result(&format!("{}\n", path.display()))?;
                }
            }
            Command::Docs { folder } => {
                for page in docs::pages() {
                    let path = folder.join(page.path);
                    let parent = path.parent().unwrap_or(Path::new("."));
                    let written =
                        fs::create_dir_all(parent).and_then(|()| fs::write(&path, page.text));
                    written.map_err(|error| unwritten(&path, &error))?;
                    output.result(&format!("{}\n", path.display()))?;
                }
            }
            Command::Debug => {
                serve::serve_for_debugger(&format!("registry.terraform.io/{ADDRESS}")).await?
            }
        }
        Ok(())
    }
}

fn unwritten(path: &Path, error: &std::io::Error) -> Failure {
    Fault::new(FaultCode::OutputFailed, format!("failed to write {}: {error}", path.display()))
        .into()
}
