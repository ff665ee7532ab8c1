//! The published JSON schemas, which what the programs print is held against.

use std::fmt;

use anyhow::{Context as _, Result, anyhow};
use serde_json::Value;

use crate::programs::workspace_folder;

/// A schema of `schemas/json`.
pub struct JsonSchema {
    schemas: boon::Schemas,
    index: boon::SchemaIndex,
    document: Value,
}

impl fmt::Debug for JsonSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JsonSchema").field("document", &self.document).finish_non_exhaustive()
    }
}

impl JsonSchema {
    /// Reads and compiles one by its name, such as `plan`.
    ///
    /// # Errors
    /// When there is no such file, or it is no schema.
    pub fn published(name: &str) -> Result<Self> {
        let file = format!("{name}.schema.json");
        let path = workspace_folder().join("schemas/json").join(&file);
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("reading {}", path.display()))?;
        let document: Value = serde_json::from_str(&text)?;
        let mut compiler = boon::Compiler::new();
        compiler
            .add_resource(&file, document.clone())
            .map_err(|error| anyhow!("{file}: {error:#}"))?;
        let mut schemas = boon::Schemas::new();
        let index =
            compiler.compile(&file, &mut schemas).map_err(|error| anyhow!("{file}: {error:#}"))?;
        Ok(Self { schemas, index, document })
    }

    /// The schema itself.
    #[must_use]
    pub fn document(&self) -> &Value {
        &self.document
    }

    /// Makes sure that a document is as the schema says.
    ///
    /// # Errors
    /// When it is not, with the places where it is not.
    pub fn accepts(&self, document: &Value) -> Result<(), String> {
        self.schemas.validate(document, self.index).map_err(|error| format!("{error:#}"))
    }
}
