//! What the provider offers: its own block, one resource, two data sources. Their bodies are the
//! HCL's; what is added is here.

use schemas::hcl::schema::{AttributeSchema, BlockSchema, DAEMON, Kind, MIGRATION, Times};
use schemas::kept_secret::Side;
use schemas::observed::Observed;
use schemas::spec::MigrationSpec;
use serde_json::json;

use super::schema::{Attribute, Block, NestedBlock, Presence, Type};
use super::value::Value;

/// The provider's address, without the registry's host.
pub(crate) const ADDRESS: &str = "cutover-dev/cutover";

/// The type of the resource, and of the data source that reads one.
pub(crate) const MIGRATION_TYPE: &str = "cutover_migration";

/// The type of the data source that runs the live checks.
pub(crate) const PREFLIGHT_TYPE: &str = "cutover_preflight";

/// How the resource waits. Not in the HCL: there it is `cutover apply --wait PHASE --timeout D`.
pub(crate) const WAIT: BlockSchema = BlockSchema {
    name: "wait",
    times: Times::AtMostOnce,
    label: None,
    description: "How long an apply takes.",
    attributes: &[AttributeSchema {
        name: WAIT_FOR,
        kind: Kind::Choice(&["copying", "catching_up", "ready", "completed"]),
        required: false,
        default: None,
        description: "The phase that an apply waits for; it returns at once, where absent. \
             `completed` waits for `ready` until there is an acknowledgement, and for the end of \
             the cutover with it. A paused migration is not waited for.",
    }],
    blocks: &[],
};

/// The attribute of [`WAIT`].
pub(crate) const WAIT_FOR: &str = "wait_for";

/// The attribute with what a run drops. It is known when it is planned, and Terraform holds the
/// apply to it: a list that has changed in between is refused.
pub(crate) const DROPS: &str = "drops";

const DROPS_DESCRIPTION: &str = "The namespaces on the destination that the run dropped before \
     its copy (`existing_data = \"drop\"`), as its plan listed them.";

/// How long each act may take. Not in the HCL: there it is `cutover apply --timeout D`.
pub(crate) const TIMEOUTS: BlockSchema = BlockSchema {
    name: "timeouts",
    times: Times::AtMostOnce,
    label: None,
    description: "How long an apply waits at most, as in `90s`, `30m` or `12h`. The run goes on \
         regardless.",
    attributes: &[
        timeout("create", "For a new run. No limit, where absent: large copies take days."),
        timeout("update", "For a change of a run, a cutover among them. No limit, where absent."),
        timeout("delete", "For a run to stop that is cancelled. Default: `5m`."),
    ],
    blocks: &[],
};

const fn timeout(name: &'static str, description: &'static str) -> AttributeSchema {
    AttributeSchema { name, kind: Kind::Duration, required: false, default: None, description }
}

/// The provider's own block: the HCL's `daemon`.
#[must_use]
pub(crate) fn provider() -> Block {
    let mut block = Block::of(&DAEMON);
    for attribute in &mut block.attributes {
        // A provider's block has no computed attributes: what holds without a value is settled when
        // it is configured.
        attribute.presence = Presence::Optional;
        if attribute.name == "endpoint" {
            attribute.description = "Where the daemon listens. Default: the environment variable \
                 `CUTOVER_ENDPOINT`, and else `unix:///run/cutover/cutoverd.sock`."
                .to_owned();
        } else if attribute.name == "workspace" {
            attribute.description =
                "The set of migrations that this configuration owns on the daemon. Two \
                 configurations that use one daemon need a workspace each. Default: `default`."
                    .to_owned();
        }
    }
    block
}

/// The resource: the HCL's `migration`, how an apply waits, and where the run stands.
#[must_use]
pub(crate) fn migration() -> Block {
    let mut block = Block::of(&MIGRATION);
    block.description = "One move of data from a MongoDB deployment to another, live. Applying it \
         starts a run; an apply that carries the run's token cuts over; raising `generation` runs \
         again from scratch; destroying it cancels a run that is not over, and leaves the data."
        .to_owned();
    block.attributes.extend(WAIT.attributes.iter().map(Attribute::of));
    block.attributes.extend(status_attributes());
    block.attributes.push(Attribute::computed(
        DROPS,
        Type::List(Box::new(Type::Text)),
        DROPS_DESCRIPTION,
    ));
    for side in &mut block.blocks {
        if Side::from_name(side.name).is_some() {
            side.block.attributes.extend(kept_password());
        }
    }
    block.blocks.push(NestedBlock {
        name: TIMEOUTS.name,
        times: TIMEOUTS.times,
        block: Block::of(&TIMEOUTS),
    });
    block
}

/// A password that goes to the daemon and nowhere else. Not in the HCL: a file that is reviewed
/// holds none.
fn kept_password() -> [Attribute; 2] {
    [
        Attribute {
            presence: Presence::WriteOnly,
            ..Attribute::optional(
                PASSWORD,
                Type::Text,
                "The password itself, instead of a reference: the daemon keeps it, in a file for \
                 its user only. It is in no plan and no state. Needs Terraform 1.11 or OpenTofu \
                 1.11.",
            )
        },
        Attribute::optional(
            PASSWORD_VERSION,
            Type::Number,
            "A whole number, raised with each change of `password_wo`: by itself that shows in no \
             plan.",
        ),
    ]
}

/// The write-only password.
pub(crate) const PASSWORD: &str = "password_wo";

/// Its version.
pub(crate) const PASSWORD_VERSION: &str = "password_wo_version";

/// The data source that tells where a migration stands, whoever declared it.
#[must_use]
pub(crate) fn migration_data() -> Block {
    let mut attributes = vec![
        Attribute {
            presence: Presence::Required,
            ..Attribute::optional("name", Type::Text, "The migration's name.")
        },
        Attribute::optional(
            "workspace",
            Type::Text,
            "Its workspace; the provider's, where absent.",
        ),
        Attribute::computed("generation", Type::Number, "The generation of its run."),
        Attribute::computed("paused", Type::Bool, "Whether somebody holds it."),
    ];
    attributes.extend(status_attributes().into_iter().filter(|one| one.name != "workspace"));
    Block {
        description: "Where a migration stands. It may be declared elsewhere, by the command line \
             or another configuration."
            .to_owned(),
        attributes,
        blocks: Vec::new(),
    }
}

/// The data source that runs the live checks of a declaration and starts nothing.
#[must_use]
pub(crate) fn preflight_data() -> Block {
    let mut block = Block::of(&MIGRATION);
    block.description = "The live checks of a migration and its forecast, before anything starts. \
         Its body is the one of `cutover_migration`. A check that fails is told in `checks` and \
         makes `passed` false; it is no error."
        .to_owned();
    let check = Type::Object(vec![
        ("name", Type::Text),
        ("outcome", Type::Text),
        ("message", Type::Text),
        ("code", Type::Text),
        ("remedy", Type::Text),
    ]);
    let shard = Type::Object(vec![
        ("name", Type::Text),
        ("oplog_window_seconds", Type::Number),
        ("fits", Type::Bool),
    ]);
    let forecast = Type::Object(vec![
        ("bytes", Type::Number),
        ("documents", Type::Number),
        ("collections", Type::Number),
        ("copy_seconds", Type::Number),
        ("shards", Type::List(Box::new(shard))),
    ]);
    block.attributes.extend([
        Attribute::computed("passed", Type::Bool, "Whether no check failed."),
        Attribute::computed(
            "checks",
            Type::List(Box::new(check)),
            "Each check: what it found, its `outcome` (`ok`, `warn` or `fail`), and what to do.",
        ),
        Attribute::computed(
            "forecast",
            forecast,
            "How large it is and how long the copy will take, with each shard's oplog against \
             that; null where the source cannot be read.",
        ),
        Attribute::computed(
            DROPS,
            Type::List(Box::new(Type::Text)),
            "The namespaces on the destination that a run would drop first (`existing_data = \
             \"drop\"`).",
        ),
        Attribute::computed(
            "destination_access_control",
            Type::Bool,
            "Whether the destination has access control; null where that could not be seen.",
        ),
    ]);
    block
}

/// What the provider tells of a run.
fn status_attributes() -> Vec<Attribute> {
    let ready =
        Type::Object(vec![("value", Type::Bool), ("reasons", Type::List(Box::new(Type::Text)))]);
    let window = Type::Object(vec![
        ("opened_at", Type::Text),
        ("expires_at", Type::Text),
        ("extensions", Type::Number),
    ]);
    let verification = Type::Object(vec![
        ("mode", Type::Text),
        ("phase", Type::Text),
        ("documents_total", Type::Number),
        ("documents_verified", Type::Number),
        ("mismatches", Type::Number),
        ("pending_rechecks", Type::Number),
    ]);
    let error = Type::Object(vec![
        ("code", Type::Text),
        ("message", Type::Text),
        ("remedy", Type::Text),
        ("retryable", Type::Bool),
    ]);
    vec![
        Attribute::computed("id", Type::Text, "`WORKSPACE/NAME`."),
        Attribute::computed("workspace", Type::Text, "The workspace that owns it: the provider's."),
        Attribute::computed("run", Type::Text, "The run, one execution of the migration."),
        Attribute::computed(
            "serial",
            Type::Number,
            "Rises with each change of the declared state. An apply carries the one it was \
             planned on.",
        ),
        Attribute::computed(
            "phase",
            Type::Text,
            "Where the run stands, such as `copying`, `ready` or `completed`.",
        ),
        Attribute::computed(
            "lag_seconds",
            Type::Number,
            "How far the destination is behind the source; null before it is known. As all that \
             is measured it is kept as it was for as long as nothing else changes.",
        ),
        Attribute::computed(
            "ready",
            ready,
            "Whether a cutover may be acknowledged, and the reasons why not.",
        ),
        Attribute::computed(
            "acknowledge_token",
            Type::Text,
            "What `cutover.acknowledge` takes to cut over; only while the run is ready.",
        ),
        Attribute::computed(
            "window",
            window,
            "The time in which a cutover may be acknowledged, with the extensions in force.",
        ),
        Attribute::computed(
            "destination_writable",
            Type::Bool,
            "Whether the destination's users may write to it.",
        ),
        Attribute::computed("verification", verification, "The proof of the copy."),
        Attribute::computed("error", error, "What is wrong, if anything."),
    ]
}

/// What the provider tells of this run, by name.
#[must_use]
pub(crate) fn status_values(observed: &Observed) -> Vec<(&'static str, Value)> {
    let status = &observed.status;
    let json = serde_json::to_value(status).expect("a status has string keys only");
    status_attributes()
        .into_iter()
        .map(|attribute| {
            let value = match attribute.name {
                "id" => json!(format!("{}/{}", status.workspace, status.name)),
                name => json[name].clone(),
            };
            (attribute.name, attribute.ty.take(&Value::from(value)))
        })
        .collect()
}

/// What is true of a run, as its computed attributes have it, without the figures that are measured
/// anew each time.
#[must_use]
pub(crate) fn settled_status(of: impl Fn(&str) -> Value) -> Vec<Value> {
    let part = |name: &str, parts: &[&str]| {
        parts.iter().map(|part| of(name).get(part).clone()).collect::<Vec<_>>()
    };
    let whole =
        ["id", "workspace", "run", "serial", "phase", "acknowledge_token", "destination_writable"]
            .map(&of);
    let mut settled = whole.to_vec();
    settled.extend(part("ready", &["value"]));
    settled.extend(part("window", &["opened_at", "expires_at", "extensions"]));
    settled.extend(part("verification", &["mode", "mismatches"]));
    settled.extend(part("error", &["code"]));
    settled
}

/// The computed attributes that stay what they are for as long as a run does.
#[must_use]
pub(crate) fn is_fixed(name: &str) -> bool {
    matches!(name, "id" | "workspace" | "run" | DROPS)
}

/// A spec as JSON by the names of the HCL's blocks and attributes.
#[must_use]
pub(crate) fn spec_json(spec: &MigrationSpec) -> serde_json::Value {
    let mut json = serde_json::to_value(spec).expect("a spec has string keys only");
    if let Some(sharding) = json.get_mut("sharding").and_then(serde_json::Value::as_object_mut)
        && let Some(collections) = sharding.remove("collections")
    {
        sharding.insert("collection".to_owned(), collections);
    }
    json
}

#[cfg(test)]
mod tests {
    use schemas::hcl::schema::{BlockSchema, DAEMON, MIGRATION, Times};

    use super::super::schema::{Block, Presence};
    use super::{migration, preflight_data, provider};

    /// The names of a block, less those that only Terraform has.
    fn names(block: &Block, added: &[&str]) -> Vec<String> {
        let attributes = block
            .attributes
            .iter()
            .filter(|one| one.presence != Presence::Computed)
            .map(|one| one.name);
        let all = attributes.chain(block.blocks.iter().map(|one| one.name));
        all.filter(|name| !added.contains(name)).map(str::to_owned).collect()
    }

    fn compare(block: &Block, table: &BlockSchema, path: &str, added: &[&str]) {
        let mut expected: Vec<String> = table.label.into_iter().map(str::to_owned).collect();
        expected.extend(table.names().map(str::to_owned));
        assert_eq!(names(block, added), expected, "{path}");
        for attribute in table.attributes {
            let ours = block
                .attributes
                .iter()
                .find(|one| one.name == attribute.name)
                .expect("its name is there");
            let expected = match (attribute.kind.type_name(), ours.ty.to_json().to_string()) {
                // A map is how Terraform takes the object, so that a misspelt key is reported.
                (_, ty) if ty == r#"["map","string"]"# => {
                    attribute.kind.type_name().starts_with("object(")
                }
                ("list(string)", ty) => ty == r#"["list","string"]"#,
                (name, ty) => ty == format!("{name:?}"),
            };
            assert!(expected, "{path}.{}", attribute.name);
            assert_eq!(
                ours.presence == Presence::Required,
                attribute.required,
                "{path}.{}",
                attribute.name
            );
        }
        for inner in table.blocks {
            let ours =
                block.blocks.iter().find(|one| one.name == inner.name).expect("its name is there");
            assert_eq!(
                ours.times == Times::Any,
                inner.times == Times::Any,
                "{path}.{}",
                inner.name
            );
            let kept = ["password_wo", "password_wo_version"];
            let added = if path == "migration" { &kept[..] } else { &[] };
            compare(&ours.block, inner, &format!("{path}.{}", inner.name), added);
        }
    }

    #[test]
    fn the_schema_is_the_one_of_the_hcl_name_for_name() {
        compare(&migration(), &MIGRATION, "migration", &["wait_for", "timeouts"]);
        compare(&preflight_data(), &MIGRATION, "preflight", &[]);
        compare(&provider(), &DAEMON, "daemon", &[]);
    }
}
