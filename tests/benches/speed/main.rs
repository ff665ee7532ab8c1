//! How fast `cutover` is, against the least that the same work takes and against other tools, all
//! in one run on one machine.
//!
//! `cargo bench -p tests` measures everything; see `BENCHMARKS.md`. A floor is this program started
//! again: its costs are a process's own, and it shares no code with the engine.

mod backlog;
mod case;
mod cost;
mod data;
mod floor;
mod foreign;
mod measured;
mod options;
mod ours;
mod picture;
mod table;
mod watch;

use anyhow::Result;
use clap::Parser as _;
use measured::Row;
use options::{CaseName, Options};

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    if let Some(role) = options.role {
        return floor::play(role).await;
    }
    if !options.bench {
        println!("nothing is measured but by cargo bench -p tests");
        return Ok(());
    }
    let options = options.settled();
    // Built before anything is timed.
    tokio::task::spawn_blocking(rig::programs::programs_aloud).await??;
    let mut rows = Vec::new();
    for case in options.cases.clone() {
        rows.extend(measure(case, &options).await?);
        // What is measured is kept, should a later case fail.
        if let Some(path) = &options.json {
            table::write_json(path, &rows)?;
        }
    }
    if let Some(folder) = &options.pictures {
        picture::write(folder, &rows)?;
    }
    println!("{}\n\n{}", table::machine(), table::text(&rows));
    Ok(())
}

async fn measure(case: CaseName, options: &Options) -> Result<Vec<Row>> {
    match case {
        CaseName::Copy => case::copy::shapes("copy", options.gigabytes, options).await,
        CaseName::Far => case::copy::far(options).await,
        CaseName::Many => case::copy::many(options).await,
        CaseName::Verify => case::copy::verify(options).await,
        CaseName::Saturated => case::load::run("saturated", None, options).await,
        CaseName::Steady => case::load::run("steady 2,000/s", case::load::fixed(), options).await,
        CaseName::Growth => {
            let mut rows = Vec::new();
            for times in [1, 4, 16] {
                let name = format!("growth {times}x");
                rows.extend(
                    case::copy::shapes(&name, options.growth_gigabytes * f64::from(times), options)
                        .await?,
                );
            }
            Ok(rows)
        }
        CaseName::Drain => {
            let mut rows = Vec::new();
            for kind in options.backlogs.clone() {
                rows.extend(case::drain::run(kind, options).await?);
            }
            Ok(rows)
        }
    }
}
