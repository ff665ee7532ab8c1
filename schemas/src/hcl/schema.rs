//! What can be written: every block and attribute with its type, default and meaning.
//!
//! The checker reads these tables and nothing else for names and types, and the Terraform schema is
//! compared with them name for name.

/// A block.
#[derive(Debug)]
pub struct BlockSchema {
    /// Its name.
    pub name: &'static str,
    /// How often it stands in the block around it.
    pub times: Times,
    /// What its one label is; `None`: it takes none.
    pub label: Option<&'static str>,
    /// What it is for.
    pub description: &'static str,
    /// Its attributes.
    pub attributes: &'static [AttributeSchema],
    /// The blocks in it.
    pub blocks: &'static [BlockSchema],
}

/// How often a block stands in the one around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Times {
    /// Exactly once.
    Once,
    /// Once or not at all.
    AtMostOnce,
    /// Any number of times.
    Any,
}

/// An attribute.
#[derive(Debug)]
pub struct AttributeSchema {
    /// Its name.
    pub name: &'static str,
    /// What its value is.
    pub kind: Kind,
    /// Whether it must be there.
    pub required: bool,
    /// What holds where it is absent, as it would be written; `None`: nothing, or as the
    /// description says.
    pub default: Option<&'static str>,
    /// What it does.
    pub description: &'static str,
}

/// What an attribute's value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Flag,
    /// A whole number within these bounds.
    Whole {
        /// The least.
        least: u32,
        /// The most.
        most: u32,
    },
    /// A duration above zero, such as `90s` or `120h`.
    Duration,
    /// One of these texts.
    Choice(&'static [&'static str]),
    /// A text.
    Text,
    /// A list of namespace patterns, such as `shop.*`.
    Patterns,
    /// A list of `field:1` and `field:hashed`.
    ShardKey,
    /// A MongoDB connection string without a password.
    Uri,
    /// A reference to a secret: `{ env = "NAME" }` or `{ file = "path" }`.
    Secret,
    /// A file, relative to the one that names it.
    File,
    /// A rate, such as `50MB/s` or `20000docs/s`.
    Rate,
    /// The daemon's address.
    Endpoint,
    /// A name of letters, digits, `-` and `_`.
    Name,
    /// A type, such as `string` or `list(number)`.
    Type,
    /// Any value.
    Any,
    /// An expression that is looked at later.
    Expression,
}

impl Kind {
    /// The type in Terraform's words.
    #[must_use]
    pub const fn type_name(self) -> &'static str {
        match self {
            Self::Flag => "bool",
            Self::Whole { .. } => "number",
            Self::Patterns | Self::ShardKey => "list(string)",
            Self::Secret => "object({ env = optional(string), file = optional(string) })",
            Self::Type | Self::Any | Self::Expression => "any",
            Self::Duration
            | Self::Choice(_)
            | Self::Text
            | Self::Uri
            | Self::File
            | Self::Rate
            | Self::Endpoint
            | Self::Name => "string",
        }
    }
}

const fn optional(
    name: &'static str,
    kind: Kind,
    default: Option<&'static str>,
    description: &'static str,
) -> AttributeSchema {
    AttributeSchema { name, kind, required: false, default, description }
}

const fn required(name: &'static str, kind: Kind, description: &'static str) -> AttributeSchema {
    AttributeSchema { name, kind, required: true, default: None, description }
}

const URI: AttributeSchema = required(
    "uri",
    Kind::Uri,
    "The connection string, without a password: a replica set, any mongos, or mongodb+srv.",
);
const USERNAME: AttributeSchema =
    optional("username", Kind::Text, None, "The user, over the one in the URI.");
const PASSWORD: AttributeSchema = optional(
    "password",
    Kind::Secret,
    None,
    "Where the daemon finds the password: { env = \"NAME\" } or { file = \"path\" }.",
);

const TLS: BlockSchema = BlockSchema {
    name: "tls",
    times: Times::AtMostOnce,
    label: None,
    description: "Switches TLS on.",
    attributes: &[
        optional(
            "ca_file",
            Kind::File,
            None,
            "PEM file with the authorities to trust; the system's, where absent.",
        ),
        optional(
            "certificate_key_file",
            Kind::File,
            None,
            "PEM file with the client's certificate and its key.",
        ),
    ],
    blocks: &[],
};

const SOURCE: BlockSchema = BlockSchema {
    name: "source",
    times: Times::Once,
    label: None,
    description: "Where the data is.",
    attributes: &[URI, USERNAME, PASSWORD],
    blocks: &[TLS],
};

const DESTINATION: BlockSchema = BlockSchema {
    name: "destination",
    times: Times::Once,
    label: None,
    description: "Where the data goes.",
    attributes: &[
        URI,
        USERNAME,
        PASSWORD,
        optional(
            "existing_data",
            Kind::Choice(&["refuse", "drop"]),
            Some("\"refuse\""),
            "What happens to data that is there: refuse to start, or drop the namespaces in scope.",
        ),
        optional(
            "block_writes",
            Kind::Flag,
            None,
            "Whether others are kept from writing there until cutover; on where the destination \
             has access control.",
        ),
    ],
    blocks: &[TLS],
};

const NAMESPACES: BlockSchema = BlockSchema {
    name: "namespaces",
    times: Times::AtMostOnce,
    label: None,
    description: "What is carried.",
    attributes: &[
        optional(
            "include",
            Kind::Patterns,
            Some("[]"),
            "Patterns db.collection with * within a part; empty: all user data.",
        ),
        optional(
            "exclude",
            Kind::Patterns,
            Some("[]"),
            "Patterns of what is left out, over include.",
        ),
        optional(
            "include_users",
            Kind::Flag,
            Some("false"),
            "Whether users and roles defined in the databases in scope are carried.",
        ),
    ],
    blocks: &[],
};

const COPY: BlockSchema = BlockSchema {
    name: "copy",
    times: Times::AtMostOnce,
    label: None,
    description: "How the initial copy works.",
    attributes: &[
        optional(
            "parallelism",
            Kind::Whole { least: 1, most: 256 },
            None,
            "Readers and writers at work at once, to begin with and at most; chosen from the \
             cores, the connections and the memory, where absent.",
        ),
        optional(
            "indexes",
            Kind::Choice(&["after_copy", "before_copy"]),
            Some("\"after_copy\""),
            "Whether indexes are built after a collection's documents, or before them.",
        ),
        optional(
            "rate_limit",
            Kind::Rate,
            None,
            "A bound on the copy, such as 50MB/s or 20000docs/s.",
        ),
    ],
    blocks: &[],
};

const SHARDING: BlockSchema = BlockSchema {
    name: "sharding",
    times: Times::AtMostOnce,
    label: None,
    description: "Settings of sharded sources and destinations.",
    attributes: &[optional(
        "balancer",
        Kind::Choice(&["require_off", "manage"]),
        Some("\"require_off\""),
        "Whether the source's balancer must be off, or is stopped for the run and given back \
         after it.",
    )],
    blocks: &[BlockSchema {
        name: "collection",
        times: Times::Any,
        label: Some("namespace"),
        description: "A collection whose shard key on the destination differs from the source's.",
        attributes: &[required(
            "key",
            Kind::ShardKey,
            "The fields in order: field:1 or field:hashed.",
        )],
        blocks: &[],
    }],
};

const VERIFY: BlockSchema = BlockSchema {
    name: "verify",
    times: Times::AtMostOnce,
    label: None,
    description: "How the copy is proved.",
    attributes: &[optional(
        "mode",
        Kind::Choice(&["full", "off"]),
        None,
        "Whether every document is compared, or none.",
    )],
    blocks: &[],
};

const CUTOVER: BlockSchema = BlockSchema {
    name: "cutover",
    times: Times::AtMostOnce,
    label: None,
    description: "When and how it cuts over.",
    attributes: &[
        optional(
            "window",
            Kind::Duration,
            Some("\"120h\""),
            "How long a cutover may be acknowledged, from the first ready on.",
        ),
        optional(
            "extensions",
            Kind::Whole { least: 0, most: 365 },
            Some("0"),
            "Each adds 24 hours to the window.",
        ),
        optional("max_lag", Kind::Duration, Some("\"10s\""), "Readiness needs a lag below this."),
        optional(
            "max_downtime",
            Kind::Duration,
            Some("\"5m\""),
            "Past this the cutover is given up and the source unblocked.",
        ),
        optional(
            "source_writes",
            Kind::Choice(&["block", "observe"]),
            Some("\"block\""),
            "Whether the server refuses writes at cutover, or their owners stop them and the run \
             watches.",
        ),
        optional(
            "source_after",
            Kind::Choice(&["blocked", "open"]),
            Some("\"blocked\""),
            "Whether the source stays blocked once completed, or takes writes again.",
        ),
        optional(
            "acknowledge",
            Kind::Text,
            None,
            "The token of a ready run, in a reviewed change: it cuts over.",
        ),
    ],
    blocks: &[],
};

/// A `migration` block.
pub const MIGRATION: BlockSchema = BlockSchema {
    name: "migration",
    times: Times::Any,
    label: Some("name"),
    description: "One move of data from a source to a destination.",
    attributes: &[
        optional(
            "generation",
            Kind::Whole { least: 1, most: u32::MAX },
            Some("1"),
            "Raised to run again from scratch.",
        ),
        optional("paused", Kind::Flag, Some("false"), "Holds the run where it stands."),
    ],
    blocks: &[SOURCE, DESTINATION, NAMESPACES, COPY, SHARDING, VERIFY, CUTOVER],
};

/// How a daemon on another machine and its caller know each other.
const DAEMON_TLS: BlockSchema = BlockSchema {
    name: "tls",
    times: Times::AtMostOnce,
    label: None,
    description: "For a daemon that listens on TCP: whom to trust, and what to show it.",
    attributes: &[
        required(
            "ca_file",
            Kind::File,
            "PEM file with the authorities that the daemon's certificate comes from.",
        ),
        required(
            "certificate_key_file",
            Kind::File,
            "PEM file with the certificate that the daemon is shown, and its key.",
        ),
    ],
    blocks: &[],
};

/// The `daemon` block.
pub const DAEMON: BlockSchema = BlockSchema {
    name: "daemon",
    times: Times::AtMostOnce,
    label: None,
    description: "Which daemon carries the migrations out.",
    attributes: &[
        optional(
            "endpoint",
            Kind::Endpoint,
            Some("\"unix:///run/cutover/cutoverd.sock\""),
            "Where the daemon listens: `unix:PATH` or `tcp://HOST:PORT`.",
        ),
        optional(
            "workspace",
            Kind::Name,
            Some("\"default\""),
            "The set of migrations that this directory owns on the daemon.",
        ),
    ],
    blocks: &[DAEMON_TLS],
};

/// A `variable` block.
pub const VARIABLE: BlockSchema = BlockSchema {
    name: "variable",
    times: Times::Any,
    label: Some("name"),
    description: "A value that is given from outside.",
    attributes: &[
        optional(
            "type",
            Kind::Type,
            Some("any"),
            "What the value must be, such as string or list(number).",
        ),
        optional(
            "default",
            Kind::Any,
            None,
            "The value where none is given; without one, a value must be given.",
        ),
        optional("description", Kind::Text, None, "What it is for."),
        optional(
            "sensitive",
            Kind::Flag,
            Some("false"),
            "Whether the value is kept out of plans and messages.",
        ),
        optional("nullable", Kind::Flag, Some("true"), "Whether the value may be null."),
    ],
    blocks: &[BlockSchema {
        name: "validation",
        times: Times::Any,
        label: None,
        description: "A rule that the value must keep.",
        attributes: &[
            required("condition", Kind::Expression, "True where the value keeps the rule."),
            required("error_message", Kind::Expression, "What to say where it does not."),
        ],
        blocks: &[],
    }],
};

/// A `locals` block: its attributes have names of their own.
pub const LOCALS: BlockSchema = BlockSchema {
    name: "locals",
    times: Times::Any,
    label: None,
    description: "Values under names of their own.",
    attributes: &[],
    blocks: &[],
};

/// The blocks of a file.
pub const TOP: [&BlockSchema; 4] = [&DAEMON, &VARIABLE, &LOCALS, &MIGRATION];

impl BlockSchema {
    /// The attribute of this name.
    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<&'static AttributeSchema> {
        self.attributes.iter().find(|attribute| attribute.name == name)
    }

    /// The block of this name in it.
    #[must_use]
    pub fn block(&self, name: &str) -> Option<&'static BlockSchema> {
        self.blocks.iter().find(|block| block.name == name)
    }

    /// All names in it, of attributes and blocks.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        let (attributes, blocks) = (self.attributes, self.blocks);
        attributes
            .iter()
            .map(|attribute| attribute.name)
            .chain(blocks.iter().map(|block| block.name))
    }
}
