//! The layout from which Terraform and OpenTofu install the provider: a filesystem mirror.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::catalog::ADDRESS;

/// The registries whose names an address without a host stands for: Terraform's and OpenTofu's.
const HOSTS: [&str; 2] = ["registry.terraform.io", "registry.opentofu.org"];

/// The provider's version.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Puts a program into a mirror, and gives the paths.
pub(crate) fn mirror(program: &Path, folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut made = Vec::new();
    for host in HOSTS {
        let place = folder.join(host).join(ADDRESS).join(VERSION).join(platform());
        fs::create_dir_all(&place)?;
        let target = place.join(format!("terraform-provider-cutover_v{VERSION}"));
        // Beside it first: a copy that is cut short must not stand where a whole one is looked for,
        // and a running one is busy.
        let draft = place.join(".draft");
        fs::copy(program, &draft)?;
        fs::rename(&draft, &target)?;
        made.push(target);
    }
    Ok(made)
}

/// The platform in Terraform's words.
fn platform() -> String {
    let system = match std::env::consts::OS {
        "macos" => "darwin",
        other => other,
    };
    let machine = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!("{system}_{machine}")
}
