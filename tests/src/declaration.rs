//! The HCL of one migration, built by paths of attributes, so that a test edits it as a person
//! would edit the file.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

/// A migration's block.
#[derive(Debug, Clone)]
pub struct Declaration {
    name: String,
    /// Expressions by their paths, as in `cutover.max_lag`.
    attributes: BTreeMap<String, String>,
}

impl Declaration {
    /// A migration of this label between two connection strings.
    #[must_use]
    pub fn new(name: &str, source_uri: &str, destination_uri: &str) -> Self {
        Self { name: name.to_owned(), attributes: BTreeMap::new() }
            .text("source.uri", source_uri)
            .text("destination.uri", destination_uri)
    }

    /// The migration's label.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Gives an attribute an expression, written as it is.
    #[must_use]
    pub fn set(mut self, path: &str, expression: impl Display) -> Self {
        self.attributes.insert(path.to_owned(), expression.to_string());
        self
    }

    /// Gives an attribute a quoted text.
    #[must_use]
    pub fn text(self, path: &str, text: &str) -> Self {
        // Of the characters of a connection string only these begin something else within quotes.
        let escaped = text
            .replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace("${", "$${")
            .replace("%{", "%%{");
        self.set(path, format_args!("\"{escaped}\""))
    }

    /// Takes an attribute out again.
    #[must_use]
    pub fn without(mut self, path: &str) -> Self {
        self.attributes.remove(path);
        self
    }

    /// A user and where the daemon finds its password, on one side: `source` or `destination`.
    #[must_use]
    pub fn user(self, side: &str, name: &str, password_variable: &str) -> Self {
        self.text(&format!("{side}.username"), name)
            .set(&format!("{side}.password"), format_args!("{{ env = \"{password_variable}\" }}"))
    }

    /// Declares the shard key of a collection on the destination, as in
    /// `["customer:1", "_id:hashed"]`.
    #[must_use]
    pub fn shard_key(self, namespace: &str, key: &[&str]) -> Self {
        self.set(&format!("sharding.collection \"{namespace}\".key"), format_args!("{key:?}"))
    }

    /// The block as text.
    #[must_use]
    pub fn hcl(&self) -> String {
        let entries: Vec<(&str, &str)> = self
            .attributes
            .iter()
            .map(|(path, expression)| (path.as_str(), expression.as_str()))
            .collect();
        let mut hcl = format!("migration \"{}\" {{\n", self.name);
        render(&mut hcl, 1, &entries);
        hcl.push_str("}\n");
        hcl
    }

    /// Writes it to `NAME.hcl` in a folder.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join(format!("{}.hcl", self.name));
        fs::write(&path, self.hcl()).with_context(|| format!("failed to write {}", path.display()))
    }
}

/// A path's first step and the rest; a label in quotes may have dots of its own.
fn split(path: &str) -> Option<(&str, &str)> {
    let mut is_quoted = false;
    let dot = path.find(|c: char| {
        is_quoted ^= c == '"';
        c == '.' && !is_quoted
    })?;
    Some((&path[..dot], &path[dot + 1..]))
}

/// The attributes of a block, then the blocks in it.
fn render(hcl: &mut String, depth: usize, entries: &[(&str, &str)]) {
    let indent = "  ".repeat(depth);
    let mut blocks: BTreeMap<&str, Vec<(&str, &str)>> = BTreeMap::new();
    for (path, expression) in entries {
        match split(path) {
            Some((block, rest)) => blocks.entry(block).or_default().push((rest, expression)),
            // Writing to a String cannot fail, here and below.
            None => drop(writeln!(hcl, "{indent}{path} = {expression}")),
        }
    }
    for (block, entries) in blocks {
        let _ = writeln!(hcl, "{indent}{block} {{");
        render(hcl, depth + 1, &entries);
        let _ = writeln!(hcl, "{indent}}}");
    }
}

#[cfg(test)]
mod tests {
    use super::Declaration;

    #[test]
    fn paths_become_blocks() {
        let declaration =
            Declaration::new("orders", "mongodb://a/?authSource=$external", "mongodb://b/")
                .set("generation", 2)
                .text("source.tls.ca_file", "/a${b}")
                .user("destination", "migrator", "PASSWORD")
                .set("paused", true)
                .shard_key("shop.orders", &["customer:1", "_id:hashed"])
                .without("paused");
        assert_eq!(
            declaration.hcl(),
            r#"migration "orders" {
  generation = 2
  destination {
    password = { env = "PASSWORD" }
    uri = "mongodb://b/"
    username = "migrator"
  }
  sharding {
    collection "shop.orders" {
      key = ["customer:1", "_id:hashed"]
    }
  }
  source {
    uri = "mongodb://a/?authSource=$external"
    tls {
      ca_file = "/a$${b}"
    }
  }
}
"#
        );
    }
}
