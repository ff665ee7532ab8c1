//! Pictures of results, as SVG: what arrives over time, and what a GB costs at each size.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::measured::Row;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 380.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 180.0;
const TOP: f64 = 46.0;
const BOTTOM: f64 = 52.0;
/// Told apart by everybody (Okabe and Ito), and by their order.
const COLOURS: [&str; 5] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00"];

/// A line of a picture.
struct Line {
    name: String,
    points: Vec<(f64, f64)>,
}

/// Writes the pictures that the rows give.
pub(crate) fn write(folder: &Path, rows: &[Row]) -> Result<()> {
    std::fs::create_dir_all(folder)
        .with_context(|| format!("failed to create {}", folder.display()))?;
    let copies: Vec<Line> =
        rows.iter().filter(|row| row.case == "copy").filter_map(throughput).collect();
    if !copies.is_empty() {
        let svg = chart("Copy: what reaches the destination", "seconds", "MB/s", &copies);
        std::fs::write(folder.join("throughput.svg"), svg)?;
    }
    let mut growth: Vec<Line> = Vec::new();
    for row in rows.iter().filter(|row| row.case.starts_with("growth")) {
        let Some(gigabytes) = row.gigabytes else { continue };
        let point = (gigabytes, row.median(|run| run.seconds) / gigabytes);
        match growth.iter_mut().find(|line| line.name == row.contender) {
            Some(line) => line.points.push(point),
            None => growth.push(Line { name: row.contender.clone(), points: vec![point] }),
        }
    }
    if !growth.is_empty() {
        let svg = chart("Copy: what a GB takes as the data grows", "GB", "s/GB", &growth);
        std::fs::write(folder.join("growth.svg"), svg)?;
    }
    Ok(())
}

/// The run with the median time, as MB/s over time: each point over about a second, so that single
/// batches do not show.
fn throughput(row: &Row) -> Option<Line> {
    let median = row.median(|run| run.seconds);
    let distance = |run: &&crate::measured::Measured| (run.seconds - median).abs();
    let run = row.runs.iter().min_by(|a, b| distance(a).total_cmp(&distance(b)))?;
    let mut points = Vec::new();
    for (place, (at, bytes)) in run.received.iter().enumerate() {
        let before = run.received[..place]
            .iter()
            .rev()
            .find(|(then, _)| at - then >= 0.9)
            .or(run.received.first())?;
        if at - before.0 > 0.2 {
            points.push((*at, (bytes - before.1) / (at - before.0) / 1e6));
        }
    }
    Some(Line { name: row.contender.clone(), points })
}

/// A round number at or above a value: 1, 2 or 5 times a power of ten.
fn round_up(value: f64) -> f64 {
    let power = 10_f64.powf(value.max(1e-9).log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|step| step * power)
        .find(|round| *round >= value)
        .unwrap_or(value)
}

fn chart(title: &str, x_name: &str, y_name: &str, lines: &[Line]) -> String {
    let most = |of: fn(&(f64, f64)) -> f64| {
        lines.iter().flat_map(|line| &line.points).map(of).fold(0.0, f64::max)
    };
    let (x_step, y_step) =
        (round_up(most(|point| point.0) / 6.0), round_up(most(|point| point.1) / 5.0));
    let (x_ticks, y_ticks) =
        ((most(|point| point.0) / x_step).ceil(), (most(|point| point.1) / y_step).ceil());
    let (x_most, y_most) = (x_step * x_ticks.max(1.0), y_step * y_ticks.max(1.0));
    let x = |value: f64| LEFT + value / x_most * (WIDTH - LEFT - RIGHT);
    let y = |value: f64| HEIGHT - BOTTOM - value / y_most * (HEIGHT - TOP - BOTTOM);
    let mut svg = String::new();
    // Writing to a String cannot fail, here and below.
    let _ = writeln!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" \
         fill=\"#fff\"/>\n<text x=\"{LEFT}\" y=\"26\" font-size=\"16\">{title}</text>"
    );
    for tick in 0..=(y_ticks.max(1.0) as u32) {
        let value = f64::from(tick) * y_step;
        let at = y(value);
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{:.1}\" y2=\"{at:.1}\" \
             stroke=\"#ddd\"/>\n<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            WIDTH - RIGHT,
            LEFT - 8.0,
            at + 4.0,
            label(value, y_step),
        );
    }
    for tick in 0..=(x_ticks.max(1.0) as u32) {
        let value = f64::from(tick) * x_step;
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            x(value),
            HEIGHT - BOTTOM + 20.0,
            label(value, x_step),
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{x_name}</text>\n<text x=\"18\" \
         y=\"{:.1}\" text-anchor=\"middle\" transform=\"rotate(-90 18 {:.1})\">{y_name}</text>",
        f64::midpoint(LEFT, WIDTH - RIGHT),
        HEIGHT - 12.0,
        f64::midpoint(TOP, HEIGHT - BOTTOM),
        f64::midpoint(TOP, HEIGHT - BOTTOM),
    );
    for (place, line) in lines.iter().enumerate() {
        let colour = COLOURS[place % COLOURS.len()];
        let points: Vec<String> =
            line.points.iter().map(|(a, b)| format!("{:.1},{:.1}", x(*a), y(*b))).collect();
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            points.join(" ")
        );
        if line.points.len() < 10 {
            for (a, b) in &line.points {
                let _ = writeln!(
                    svg,
                    "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"4\" fill=\"{colour}\"/>",
                    x(*a),
                    y(*b)
                );
            }
        }
        let at = TOP + 10.0 + 22.0 * place as f64;
        let _ = writeln!(
            svg,
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"12\" height=\"12\" fill=\"{colour}\"/>\n<text \
             x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            WIDTH - RIGHT + 14.0,
            at - 10.0,
            WIDTH - RIGHT + 32.0,
            at,
            line.name,
        );
    }
    svg.push_str("</svg>\n");
    svg
}

fn label(value: f64, step: f64) -> String {
    let places =
        if step >= 1.0 { 0 } else { usize::try_from((-step.log10()).ceil() as i64).unwrap_or(0) };
    format!("{value:.places$}")
}
