//! What can be configured, in Terraform's terms. What the HCL has is taken from its own tables,
//! name for name.

use std::collections::BTreeMap;

use schemas::hcl::schema::{AttributeSchema, BlockSchema, Kind, Times};
use schemas::plugin_protocol::tfplugin6::schema as pb;
use schemas::plugin_protocol::tfplugin6::{Schema, StringKind};
use serde_json::{Value as Json, json};

use super::value::Value;

/// A block.
#[derive(Debug, Clone)]
pub(crate) struct Block {
    /// What it is for.
    pub(crate) description: String,
    /// Its attributes.
    pub(crate) attributes: Vec<Attribute>,
    /// The blocks in it.
    pub(crate) blocks: Vec<NestedBlock>,
}

/// A block in another one.
#[derive(Debug, Clone)]
pub(crate) struct NestedBlock {
    /// Its name.
    pub(crate) name: &'static str,
    /// How often it stands there.
    pub(crate) times: Times,
    /// The block itself.
    pub(crate) block: Block,
}

/// An attribute.
#[derive(Debug, Clone)]
pub(crate) struct Attribute {
    /// Its name.
    pub(crate) name: &'static str,
    /// Its type.
    pub(crate) ty: Type,
    /// Who gives it.
    pub(crate) presence: Presence,
    /// What it does.
    pub(crate) description: String,
}

/// Who gives an attribute.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Presence {
    /// The configuration, always.
    Required,
    /// The configuration, or nobody.
    Optional,
    /// The configuration, or else it is this.
    Default(Json),
    /// The configuration; the value goes no further than to the daemon.
    WriteOnly,
    /// The provider.
    Computed,
}

/// A type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Type {
    /// True or false.
    Bool,
    /// A number.
    Number,
    /// Text.
    Text,
    /// Values in order.
    List(Box<Type>),
    /// Values by name.
    Map(Box<Type>),
    /// An object with these attributes, any of which may be null.
    Object(Vec<(&'static str, Type)>),
}

impl Type {
    fn of(kind: Kind) -> Self {
        match kind {
            Kind::Flag => Self::Bool,
            Kind::Whole { .. } => Self::Number,
            Kind::Patterns | Kind::ShardKey => Self::List(Box::new(Self::Text)),
            // A map keeps a misspelt key, so that it is reported; an object's would be dropped in
            // silence.
            Kind::Secret => Self::Map(Box::new(Self::Text)),
            Kind::Duration
            | Kind::Choice(_)
            | Kind::Text
            | Kind::Uri
            | Kind::File
            | Kind::Rate
            | Kind::Endpoint
            | Kind::Name
            | Kind::Type
            | Kind::Any
            | Kind::Expression => Self::Text,
        }
    }

    /// The type as Terraform writes it in JSON.
    #[must_use]
    pub(crate) fn to_json(&self) -> Json {
        match self {
            Self::Bool => json!("bool"),
            Self::Number => json!("number"),
            Self::Text => json!("string"),
            Self::List(item) => json!(["list", item.to_json()]),
            Self::Map(item) => json!(["map", item.to_json()]),
            Self::Object(fields) => {
                let fields: BTreeMap<&str, Json> =
                    fields.iter().map(|(name, ty)| (*name, ty.to_json())).collect();
                json!(["object", fields])
            }
        }
    }

    /// The part of a value that is of this type: an object's attributes are all there and no other;
    /// what does not fit is null.
    #[must_use]
    pub(crate) fn take(&self, value: &Value) -> Value {
        match (self, value) {
            (_, Value::Unknown) => Value::Unknown,
            (Self::Bool, Value::Bool(_))
            | (Self::Number, Value::Number(_))
            | (Self::Text, Value::Text(_)) => value.clone(),
            (Self::List(item), Value::List(items)) => {
                Value::List(items.iter().map(|one| item.take(one)).collect())
            }
            (Self::Map(item), Value::Object(entries)) => Value::Object(
                entries.iter().map(|(name, one)| (name.clone(), item.take(one))).collect(),
            ),
            (Self::Object(fields), Value::Object(_)) => Value::Object(
                fields
                    .iter()
                    .map(|(name, ty)| ((*name).to_owned(), ty.take(value.get(name))))
                    .collect(),
            ),
            _ => Value::Null,
        }
    }
}

impl Attribute {
    /// An attribute of the HCL.
    #[must_use]
    pub(crate) fn of(table: &AttributeSchema) -> Self {
        let default = table
            .default
            .map(|text| serde_json::from_str(text).expect("a test reads every default as JSON"));
        let presence = match default {
            _ if table.required => Presence::Required,
            Some(default) => Presence::Default(default),
            None => Presence::Optional,
        };
        let mut description = table.description.to_owned();
        if let Kind::Choice(choices) = table.kind {
            let choices: Vec<String> = choices.iter().map(|choice| format!("`{choice}`")).collect();
            description = format!("{description} One of {}.", choices.join(", "));
        }
        if let Some(default) = table.default {
            description = format!("{description} Default: `{}`.", default.trim_matches('"'));
        }
        Self { name: table.name, ty: Type::of(table.kind), presence, description }
    }

    /// One that the provider gives.
    #[must_use]
    pub(crate) fn computed(name: &'static str, ty: Type, description: &str) -> Self {
        Self { name, ty, presence: Presence::Computed, description: description.to_owned() }
    }

    /// One that the configuration gives or leaves out.
    #[must_use]
    pub(crate) fn optional(name: &'static str, ty: Type, description: &str) -> Self {
        Self { name, ty, presence: Presence::Optional, description: description.to_owned() }
    }

    fn to_protocol(&self) -> pb::Attribute {
        let default = matches!(self.presence, Presence::Default(_));
        let write_only = self.presence == Presence::WriteOnly;
        pb::Attribute {
            name: self.name.to_owned(),
            r#type: self.ty.to_json().to_string().into_bytes(),
            description: self.description.clone(),
            required: self.presence == Presence::Required,
            optional: default || write_only || self.presence == Presence::Optional,
            computed: default || self.presence == Presence::Computed,
            // A write-only value is in no plan and no state, and is never shown. Terraform 1.11
            // compares the paths of sensitive attributes of a refreshed state in the order in which
            // it came by them, which is chance where there are two.
            sensitive: false,
            description_kind: StringKind::Markdown.into(),
            deprecated: false,
            write_only,
        }
    }
}

impl Block {
    /// A block of the HCL; its label is an attribute.
    #[must_use]
    pub(crate) fn of(table: &'static BlockSchema) -> Self {
        let label = table.label.map(|label| Attribute {
            name: label,
            ty: Type::Text,
            presence: Presence::Required,
            description: match label {
                "namespace" => "The collection, as `db.collection`.".to_owned(),
                _ => "Its name within the workspace: letters, digits, `-` and `_`.".to_owned(),
            },
        });
        Self {
            description: table.description.to_owned(),
            attributes: label
                .into_iter()
                .chain(table.attributes.iter().map(Attribute::of))
                .collect(),
            blocks: table
                .blocks
                .iter()
                .map(|inner| NestedBlock {
                    name: inner.name,
                    times: inner.times,
                    block: Self::of(inner),
                })
                .collect(),
        }
    }

    /// The schema in the protocol's form.
    #[must_use]
    pub(crate) fn to_schema(&self) -> Schema {
        Schema { version: 0, block: Some(self.to_protocol()) }
    }

    fn to_protocol(&self) -> pb::Block {
        pb::Block {
            version: 0,
            attributes: self.attributes.iter().map(Attribute::to_protocol).collect(),
            block_types: self.blocks.iter().map(NestedBlock::to_protocol).collect(),
            description: self.description.clone(),
            description_kind: StringKind::Markdown.into(),
            deprecated: false,
        }
    }

    /// The part of a value that is of this schema: everything is there and nothing else; what does
    /// not fit is null.
    #[must_use]
    pub(crate) fn take(&self, value: &Value) -> Value {
        if !matches!(value, Value::Object(_)) {
            return if *value == Value::Unknown { Value::Unknown } else { Value::Null };
        }
        let attributes =
            self.attributes.iter().map(|one| (one.name, one.ty.take(value.get(one.name))));
        let blocks = self.blocks.iter().map(|one| (one.name, one.take(value.get(one.name))));
        Value::Object(
            attributes.chain(blocks).map(|(name, value)| (name.to_owned(), value)).collect(),
        )
    }
}

impl NestedBlock {
    fn to_protocol(&self) -> pb::NestedBlock {
        let (nesting, items) = match self.times {
            Times::Once => (pb::nested_block::NestingMode::Single, 1),
            Times::AtMostOnce => (pb::nested_block::NestingMode::Single, 0),
            Times::Any => (pb::nested_block::NestingMode::List, 0),
        };
        pb::NestedBlock {
            type_name: self.name.to_owned(),
            block: Some(self.block.to_protocol()),
            nesting: nesting.into(),
            min_items: items,
            max_items: items,
        }
    }

    fn take(&self, value: &Value) -> Value {
        match (self.times, value) {
            (Times::Any, Value::List(items)) => {
                Value::List(items.iter().map(|one| self.block.take(one)).collect())
            }
            (Times::Any, Value::Unknown) => Value::Unknown,
            (Times::Any, _) => Value::List(Vec::new()),
            (Times::Once | Times::AtMostOnce, value) => self.block.take(value),
        }
    }
}
