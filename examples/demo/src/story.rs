//! The story: fill, plan, apply, ready, acknowledge, cut over, compare.

use std::time::Instant;

use anyhow::{Result, ensure};
use rig::compare::{Scope, compare};
use rig::programs::programs_aloud;
use rig::{FillOptions, Output, Writer, WriterOptions, fill};
use serde_json::Value;

use crate::acknowledgement;
use crate::options::Options;
use crate::progress::{grouped, show_until};
use crate::stage::Stage;

/// Plays it all, and says whether both sides are equal in the end.
pub(crate) async fn tell(options: Options) -> Result<bool> {
    title("Building cutover and cutoverd");
    tokio::task::spawn_blocking(programs_aloud).await??;
    let start = Instant::now();

    title("Starting two replica sets and the daemon");
    let stage = Stage::set().await?;
    println!(
        "  source       {}\n  destination  {}\n  daemon       {}",
        stage.source.uri(),
        stage.destination.uri(),
        stage.daemon.endpoint()
    );
    let outcome = play(&stage, &options).await;
    if outcome.is_err() {
        eprintln!("\nthe end of the daemon's log:\n{}", end_of(&stage.daemon.log()));
    }
    println!("\n{} s in all", start.elapsed().as_secs());
    outcome
}

async fn play(stage: &Stage, options: &Options) -> Result<bool> {
    title("Filling the source");
    let (source, destination) = (stage.source.client().await?, stage.destination.client().await?);
    let filled =
        fill(&source, &FillOptions { documents: options.documents, ..FillOptions::default() })
            .await?;
    println!(
        "  {} documents in {} collections with {} indexes",
        grouped(filled.documents),
        filled.collections,
        filled.indexes
    );
    let writing = WriterOptions { rate: options.rate, ..WriterOptions::default() };
    let writer = Writer::start(&stage.application().await?, writing).await?;
    println!("  an application goes on writing, {} operations a second", options.rate);

    title("The plan");
    show(stage, &["plan"]).await?;
    title("Applying it");
    show(stage, &["apply", "--auto-approve"]).await?;
    title("Copying and following the source");
    let ready = show_until(stage, "ready", &writer).await?;
    println!("\n  ready; the window closes at {}", text(&ready["window"]["expires_at"]));
    let after = show(stage, &["plan", "--detailed-exitcode"]).await?;
    ensure!(after.code == 0, "a plan of what was just applied finds a difference");

    title("Acknowledging the cutover, in the HCL");
    acknowledgement::write_token(&stage.hcl(), text(&ready["acknowledge_token"]))?;
    show(stage, &["plan"]).await?;
    if !acknowledgement::is_given(options.yes).await? {
        println!("Not cut over: the source is as it was, and the copy is thrown away.");
        return Ok(false);
    }

    title("Cutting over");
    show(stage, &["apply", "--auto-approve"]).await?;
    let completed = show_until(stage, "completed", &writer).await?;
    let stats = writer.stop().await?;
    println!("\n  completed; downtime {} s", completed["cutover"]["downtime_seconds"]);
    println!(
        "  the application did {} operations, {} of them transactions, until its writes were {}",
        grouped(stats.operations),
        grouped(stats.by_kind.get("transaction").copied().unwrap_or(0)),
        if stats.blocked_at.is_some() { "refused" } else { "stopped" },
    );

    title("Comparing both sides, document by document");
    let report = compare(&source, &destination, &Scope::default()).await?;
    println!("{report}");
    let lost = stats.missing_from(&destination).await?;
    println!(
        "{} acknowledged notes of the application, {} of them missing on the destination",
        grouped(stats.ledger.len() as u64),
        lost.len()
    );
    Ok(report.is_equal() && lost.is_empty() && report.source_documents >= options.documents)
}

/// Runs a command, and shows it with its output.
async fn show(stage: &Stage, arguments: &[&str]) -> Result<Output> {
    println!("$ cutover {}", arguments.join(" "));
    let output = stage.cutover.run(arguments).await?;
    // Applying prints the plan once more; what it then did follows the plan's last line.
    let is_last_of_plan = |line: &str| arguments[0] == "apply" && line.starts_with("Plan: ");
    let lines: Vec<&str> = output.stdout.lines().collect();
    let told_already =
        lines.iter().position(|line| is_last_of_plan(line)).map_or(0, |last| last + 1);
    for line in lines[told_already..].iter().copied().chain(output.stderr.lines()) {
        println!("  {line}");
    }
    ensure!(
        output.code == 0 || output.code == 2,
        "cutover {} ended with exit code {}",
        arguments.join(" "),
        output.code
    );
    Ok(output)
}

fn title(text: &str) {
    println!("\n== {text}");
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("unknown")
}

fn end_of(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}

#[cfg(test)]
mod tests {
    use crate::stage::MIGRATION;

    #[test]
    fn the_example_declares_the_demo_s_migration_unacknowledged() {
        let example = std::fs::read_to_string(
            rig::programs::workspace_folder().join("examples/orders/main.hcl"),
        )
        .unwrap();
        assert!(example.contains(&format!("migration {MIGRATION:?} {{")));
        assert!(example.contains("acknowledge = null"));
    }
}
