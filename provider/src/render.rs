//! Results for people: plans, drift, checks, statuses and journals as text or Markdown. Pure: text
//! in, text out.

pub mod checks;
pub mod diagnostics;
pub mod events;
pub mod forecast;
pub mod markdown;
pub mod mismatches;
pub mod paint;
pub mod plan_text;
pub mod report;
pub mod status;

/// A text with what could move a terminal's cursor or change its colours made visible. Names come
/// from servers.
#[must_use]
pub fn clean(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { format!("\\u{{{:x}}}", u32::from(c)) } else { c.to_string() })
        .collect()
}
