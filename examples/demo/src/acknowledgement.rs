//! The reviewed change: the token in the HCL, its plan, and the question.

use std::fs;
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use tokio::io::{AsyncBufReadExt as _, BufReader};

/// The line of the example that the reviewed change replaces.
const UNACKNOWLEDGED: &str = "acknowledge = null";

/// Writes the token into the HCL, as the reviewed change would.
pub(crate) fn write_token(hcl: &Path, token: &str) -> Result<()> {
    let text =
        fs::read_to_string(hcl).with_context(|| format!("failed to read {}", hcl.display()))?;
    ensure!(text.contains(UNACKNOWLEDGED), "{} has no line `{UNACKNOWLEDGED}`", hcl.display());
    let acknowledged = format!("acknowledge = {token:?}");
    fs::write(hcl, text.replacen(UNACKNOWLEDGED, &acknowledged, 1))
        .with_context(|| format!("failed to write {}", hcl.display()))?;
    println!("  main.hcl:  - {UNACKNOWLEDGED}\n             + {acknowledged}\n");
    Ok(())
}

/// Asks whether to cut over. Without a terminal there is nobody to ask: the answer is yes, and it
/// says so.
pub(crate) async fn is_given(yes: bool) -> Result<bool> {
    if yes {
        println!("Cut over? yes (--yes)");
        return Ok(true);
    }
    if !std::io::stdin().is_terminal() {
        println!("Cut over? yes (standard input is no terminal, so nobody can be asked)");
        return Ok(true);
    }
    print!("Cut over? Only `yes` does it: ");
    std::io::stdout().flush()?;
    let mut answer = String::new();
    BufReader::new(tokio::io::stdin()).read_line(&mut answer).await?;
    Ok(answer.trim() == "yes")
}
