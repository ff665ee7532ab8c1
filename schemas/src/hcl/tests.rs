//! Tests of the loader as a whole: expressions against what Terraform gives, hostile texts,
//! precedence of values.

use std::path::Path;
use std::time::{Duration, Instant};

use super::{Declaration, Diagnostics, File, Inputs, load, load_texts};

mod console;
mod expression;
mod hostile;
mod rules;

const SIDES: &str =
    "source {\n uri = \"mongodb://a\"\n}\ndestination {\n uri = \"mongodb://b\"\n}\n";

fn load_text(text: &str, inputs: &Inputs) -> Result<Declaration, Diagnostics> {
    load_texts(
        Path::new("/etc/cutover"),
        vec![File { name: "main.hcl".into(), text: text.into() }],
        inputs,
    )
}

/// A migration with this in it.
fn migration(body: &str) -> String {
    format!("migration \"orders\" {{\n{SIDES}{body}\n}}\n")
}
