//! The pages of the provider's documentation, in the registry's format, from the schema.

use std::fmt::Write as _;

use schemas::hcl::schema::Times;

use super::catalog::{self, MIGRATION_TYPE, PREFLIGHT_TYPE};
use super::schema::{Attribute, Block, NestedBlock, Presence, Type};

/// One page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Its path in the folder of the documentation.
    pub path: &'static str,
    /// Its text.
    pub text: String,
}

const EXAMPLE: &str = include_str!("../../../examples/terraform/main.tf");
const PREFLIGHT_EXAMPLE: &str = include_str!("../../../examples/terraform/preflight.tf");

/// All pages.
#[must_use]
pub fn pages() -> Vec<Page> {
    let provider = "Live migration of MongoDB deployments as code.";
    vec![
        Page {
            path: "index.md",
            text: page(
                "cutover Provider",
                "cutover Provider",
                provider,
                EXAMPLE,
                &catalog::provider(),
                include_str!("docs/index.md"),
            ),
        },
        Page {
            path: "resources/migration.md",
            text: typed(
                MIGRATION_TYPE,
                "Resource",
                EXAMPLE,
                &catalog::migration(),
                include_str!("docs/migration.md"),
            ),
        },
        Page {
            path: "data-sources/migration.md",
            text: typed(
                MIGRATION_TYPE,
                "Data Source",
                PREFLIGHT_EXAMPLE,
                &catalog::migration_data(),
                "",
            ),
        },
        Page {
            path: "data-sources/preflight.md",
            text: typed(
                PREFLIGHT_TYPE,
                "Data Source",
                PREFLIGHT_EXAMPLE,
                &catalog::preflight_data(),
                "",
            ),
        },
    ]
}

fn typed(name: &str, kind: &str, example: &str, block: &Block, prose: &str) -> String {
    page(
        &format!("{name} {kind} - cutover"),
        &format!("{name} ({kind})"),
        &block.description,
        example,
        block,
        prose,
    )
}

fn page(
    title: &str,
    heading: &str,
    description: &str,
    example: &str,
    block: &Block,
    prose: &str,
) -> String {
    let mut text = format!(
        "---\npage_title: \"{title}\"\nsubcategory: \"\"\ndescription: |-\n  \
         {description}\n---\n\n# {heading}\n\n{description}\n"
    );
    if !prose.is_empty() {
        let _ = write!(text, "\n{prose}");
    }
    let _ = write!(
        text,
        "\n## Example Usage\n\n```terraform\n{}\n```\n\n## Schema\n",
        example.trim_end()
    );
    let mut nested = Vec::new();
    groups(&mut text, block, "### ", "", &mut nested);
    // What is nested follows in the order in which it is mentioned, with what is nested in it right
    // behind.
    while !nested.is_empty() {
        let Nested { path, body } = nested.remove(0);
        let _ =
            write!(text, "\n<a id=\"{}\"></a>\n### Nested Schema for `{path}`\n", anchor(&path));
        let mut deeper = Vec::new();
        match body {
            Body::Block(block) => groups(&mut text, &block, "", &path, &mut deeper),
            Body::Object(fields) => {
                text.push_str("\nRead-Only:\n\n");
                for (name, ty) in fields {
                    let _ = writeln!(text, "- `{name}` ({})", type_words(&ty));
                }
            }
        }
        nested.splice(0..0, deeper);
    }
    text
}

struct Nested {
    path: String,
    body: Body,
}

enum Body {
    Block(Block),
    Object(Vec<(&'static str, Type)>),
}

fn anchor(path: &str) -> String {
    format!("nested--{}", path.replace('.', "--"))
}

/// The attributes and blocks, by who gives them.
fn groups(text: &mut String, block: &Block, level: &str, path: &str, nested: &mut Vec<Nested>) {
    let colon = if level.is_empty() { ":" } else { "" };
    let is_required = |attribute: &&Attribute| attribute.presence == Presence::Required;
    let is_computed = |attribute: &&Attribute| attribute.presence == Presence::Computed;
    let attributes = || block.attributes.iter();
    let required: Vec<&Attribute> = attributes().filter(is_required).collect();
    let optional: Vec<&Attribute> =
        attributes().filter(|one| !is_required(one) && !is_computed(one)).collect();
    let computed: Vec<&Attribute> = attributes().filter(is_computed).collect();
    let (once, other): (Vec<&NestedBlock>, Vec<&NestedBlock>) =
        block.blocks.iter().partition(|one| one.times == Times::Once);
    for (heading, attributes, blocks) in [
        ("Required", required, once),
        ("Optional", optional, other),
        ("Read-Only", computed, Vec::new()),
    ] {
        if attributes.is_empty() && blocks.is_empty() {
            continue;
        }
        let _ = write!(text, "\n{level}{heading}{colon}\n\n");
        for attribute in attributes {
            let path = joined(path, attribute.name);
            let mut see = String::new();
            if let Some(fields) = object(&attribute.ty) {
                see = format!(" (see [below for nested schema](#{}))", anchor(&path));
                nested.push(Nested { path, body: Body::Object(fields) });
            }
            let write_only =
                if attribute.presence == Presence::WriteOnly { ", Write-only" } else { "" };
            let _ = writeln!(
                text,
                "- `{}` ({}{write_only}) {}{see}",
                attribute.name,
                type_words(&attribute.ty),
                attribute.description
            );
        }
        for inner in blocks {
            let path = joined(path, inner.name);
            let kind = if inner.times == Times::Any { "Block List" } else { "Block" };
            let description = &inner.block.description;
            let see = anchor(&path);
            let _ = writeln!(
                text,
                "- `{}` ({kind}) {description} (see [below for nested schema](#{see}))",
                inner.name
            );
            nested.push(Nested { path, body: Body::Block(inner.block.clone()) });
        }
    }
}

fn joined(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn object(ty: &Type) -> Option<Vec<(&'static str, Type)>> {
    match ty {
        Type::Object(fields) => Some(fields.clone()),
        Type::List(item) => object(item),
        _ => None,
    }
}

fn type_words(ty: &Type) -> String {
    match ty {
        Type::Bool => "Boolean".to_owned(),
        Type::Number => "Number".to_owned(),
        Type::Text => "String".to_owned(),
        Type::List(item) => format!("List of {}", type_words(item)),
        Type::Map(item) => format!("Map of {}", type_words(item)),
        Type::Object(_) => "Object".to_owned(),
    }
}
