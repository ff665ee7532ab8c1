//! Shows where the run stands, as `cutover status --json` reports it, until it is where it should
//! be.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use rig::Writer;
use serde_json::Value;

use crate::stage::{MIGRATION, Stage};

const POLL: Duration = Duration::from_millis(200);
/// Between two lines where nothing is a terminal.
const BETWEEN_LINES: Duration = Duration::from_secs(2);
/// Far more than the demo takes anywhere; past it something hangs.
const PATIENCE: Duration = Duration::from_secs(600);
const BAR: usize = 24;

/// Shows the run until it reaches a phase, and gives its status there.
pub(crate) async fn show_until(stage: &Stage, phase: &str, writer: &Writer) -> Result<Value> {
    let terminal = std::io::stdout().is_terminal();
    let start = Instant::now();
    let mut printed: Option<(String, Instant)> = None;
    loop {
        let status = stage.cutover.status(MIGRATION).await?;
        let now = status["phase"].as_str().unwrap_or("unknown").to_owned();
        let line = line(&now, &status, writer.operations());
        let arrived = now == phase;
        let due =
            printed.as_ref().is_none_or(|(last, at)| *last != now || at.elapsed() >= BETWEEN_LINES);
        if terminal {
            print!("\r\x1b[2K{line}{}", if arrived { "\n" } else { "" });
            std::io::stdout().flush()?;
        } else if due || arrived {
            println!("{line}");
            printed = Some((now.clone(), Instant::now()));
        }
        if arrived {
            return Ok(status);
        }
        if let Some(failure) = writer.failure() {
            bail!("the application failed: {failure}");
        }
        if now == "failed" || now == "cancelled" || now == "expired" {
            bail!("the run is {now}: {:#}", status["error"]);
        }
        ensure!(
            start.elapsed() < PATIENCE,
            "the run is not {phase} after {} s: {status:#}",
            PATIENCE.as_secs()
        );
        tokio::time::sleep(POLL).await;
    }
}

fn line(phase: &str, status: &Value, operations: u64) -> String {
    let (copy, verification) = (&status["copy"], &status["verification"]);
    let (copied, total) = (count(&copy["documents_copied"]), count(&copy["documents_total"]));
    let mut parts = vec![
        format!("{phase:<12} {}", bar(copied, total)),
        format!("{} documents", grouped(copied)),
    ];
    if count(&verification["documents_verified"]) > 0 {
        parts.push(format!("{} verified", grouped(count(&verification["documents_verified"]))));
    }
    parts.push(format!("{} events", grouped(count(&status["tail"]["events_applied"]))));
    if let Some(lag) = status["lag_seconds"].as_f64() {
        parts.push(format!("lag {lag:.1} s"));
    }
    parts.push(format!("application: {} operations", grouped(operations)));
    parts.join("  ")
}

fn count(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

/// A bar of the part done; the total is the source's estimate, which the application outgrows.
fn bar(done: u64, total: u64) -> String {
    let percent = (done * 100).checked_div(total).unwrap_or(0).min(100);
    let filled = usize::try_from(percent).unwrap_or(0) * BAR / 100;
    format!("[{}{}] {percent:>3} %", "#".repeat(filled), "-".repeat(BAR - filled))
}

/// A number with its thousands apart.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{bar, grouped};

    #[test]
    fn thousands_are_apart() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn a_bar_never_runs_over() {
        assert_eq!(bar(0, 0), format!("[{}]   0 %", "-".repeat(24)));
        assert_eq!(bar(7, 5), format!("[{}] 100 %", "#".repeat(24)));
        assert_eq!(bar(1, 2), format!("[{}{}]  50 %", "#".repeat(12), "-".repeat(12)));
    }
}
