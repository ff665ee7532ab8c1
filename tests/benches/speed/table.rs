//! The results as a table in text, and as JSON.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::measured::Row;

/// What ran where.
pub(crate) fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .unwrap_or("a processor")
        .trim_matches(['\t', ' ', ':']);
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let memory = read("/proc/meminfo");
    let kilobytes = memory.lines().find_map(|line| {
        line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    });
    let gigabytes = kilobytes.unwrap_or(0) as f64 / f64::from(1 << 20);
    format!("{cores} cores of {model}, {gigabytes:.0} GB; everything on it")
}

/// The rows as a Markdown table, each with its ratio to the floor of its case.
pub(crate) fn text(rows: &[Row]) -> String {
    let mut text = String::from(
        "| case | contender | wall s | spread | of the floor | own CPU s | peak MB | source CPU s \
         | destination CPU s | more |\n|---|---|--:|--:|--:|--:|--:|--:|--:|---|\n",
    );
    for row in rows {
        let seconds = row.median(|run| run.seconds);
        let (low, high) = row.spread(|run| run.seconds);
        let ratio = rows
            .iter()
            .find(|other| other.case == row.case && other.contender == "floor")
            .map_or_else(String::new, |floor| {
                format!("{:.2}", seconds / floor.median(|run| run.seconds))
            });
        let mut names: Vec<&str> = Vec::new();
        for (name, _) in row.runs.iter().flat_map(|run| &run.more) {
            if !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
        let mut more: Vec<String> = names
            .iter()
            .filter_map(|name| Some(format!("{name} {}", short(row.more(name)?))))
            .collect();
        if let Some(gigabytes) = row.gigabytes {
            more.push(format!("{:.2} s/GB", seconds / gigabytes));
        }
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "| {} | {} | {seconds:.2} | {low:.2} to {high:.2} | {ratio} | {:.2} | {:.0} | {:.2} | \
             {:.2} | {} |",
            row.case,
            row.contender.replace('|', "\\|"),
            row.median(|run| run.own_cpu),
            row.median(|run| run.own_peak as f64) / f64::from(1 << 20),
            row.median(|run| run.source_cpu),
            row.median(|run| run.destination_cpu),
            more.join(", "),
        );
    }
    text
}

fn short(value: f64) -> String {
    if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.3}") }
}

/// Writes the rows, every run of them, as JSON.
#[expect(clippy::disallowed_methods, reason = "a table says when it was made")]
pub(crate) fn write_json(path: &Path, rows: &[Row]) -> Result<()> {
    let document =
        json!({ "machine": machine(), "at": jiff::Timestamp::now().to_string(), "rows": rows });
    std::fs::write(path, serde_json::to_string_pretty(&document)?)
        .with_context(|| format!("failed to write {}", path.display()))
}
