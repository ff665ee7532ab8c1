//! A checked `migration` block to its spec, with the rules that span several attributes.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::body::{Filled, Setting};
use super::check::{Checked, NAME_RULE};
use super::diagnostic::{Diagnostic, Place, Report};
use super::source::quoted;
use super::uri::{Beside, Conflict, MongoUri, Part};
use crate::fault::FaultCode;
use crate::id::{Generation, MigrationName};
use crate::namespace::{Namespace, NamespacePattern, OWN_DATABASE, SYSTEM_DATABASES, Scope};
use crate::spec::{
    ConnectionSpec, CopySpec, CutoverSpec, DestinationSpec, ExistingData, MigrationSpec,
    NamespacesSpec, RateLimit, SecretRef, ShardKeySpec, ShardingSpec, SourceSpec, TlsSpec,
    VerifyMode, VerifySpec,
};
use crate::time::Length;

/// How the copy is proved where nothing is said. `Off` only until verification exists: then it is
/// `Full`.
pub const DEFAULT_VERIFY_MODE: VerifyMode = VerifyMode::Full;

/// One migration as it was declared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Declared {
    /// What was declared.
    pub spec: MigrationSpec,
    /// The block's header.
    pub place: Place,
    /// The places of blocks and of attributes that are written out, by path, such as
    /// `cutover.acknowledge`.
    pub places: BTreeMap<String, Place>,
    /// The paths of attributes whose value comes from a sensitive variable: they are not shown.
    pub sensitive: Vec<String>,
}

impl Declared {
    /// The place to point at for an attribute: its own, or that of the nearest block around it that
    /// is written out.
    #[must_use]
    pub fn place_of(&self, path: &str) -> &Place {
        let mut path = path;
        loop {
            if let Some(place) = self.places.get(path) {
                return place;
            }
            match path.rsplit_once('.') {
                Some((outer, _)) => path = outer,
                None => return &self.place,
            }
        }
    }
}

/// Makes the spec; `None` where something is wrong, which is reported.
pub(crate) fn build(
    filled: &Filled,
    context: &str,
    report: &mut Report,
) -> Option<(MigrationName, Declared)> {
    let errors = report.errors();
    let (label, label_place) = filled.label.as_ref()?;
    let name = match MigrationName::new(label.as_str()) {
        Ok(name) => Some(name),
        Err(_) => {
            let diagnostic = Diagnostic::error(
                format!("{} is not a name for a migration", quoted(label)),
                NAME_RULE,
            );
            report.add(diagnostic.at(label_place.clone()));
            None
        }
    };
    let mut rules = Rules { context, report: &mut *report };
    let source = filled.block("source");
    let destination = filled.block("destination");
    for side in [source, destination].into_iter().flatten() {
        rules.connection(side);
    }
    if let (Some(source), Some(destination)) = (source, destination) {
        rules.deployments(source, destination);
    }
    rules.namespaces(filled);
    rules.cutover(filled);
    let scope = namespaces(filled.block("namespaces")).scope;
    let sharding = filled.block("sharding").map(|block| rules.sharding(block, &scope));
    if report.errors() > errors {
        return None;
    }
    let name = name?;
    let spec = MigrationSpec {
        name: name.clone(),
        generation: whole(Some(filled), "generation").map_or_else(Generation::default, Generation),
        paused: flag(Some(filled), "paused").unwrap_or(false),
        source: SourceSpec { connection: connection(source?)? },
        destination: DestinationSpec {
            connection: connection(destination?)?,
            existing_data: choice(destination, "existing_data").unwrap_or(ExistingData::Refuse),
            block_writes: flag(destination, "block_writes"),
        },
        namespaces: namespaces(filled.block("namespaces")),
        copy: copy(filled.block("copy")),
        sharding,
        verify: VerifySpec {
            mode: choice(filled.block("verify"), "mode").unwrap_or(DEFAULT_VERIFY_MODE),
        },
        cutover: cutover(filled.block("cutover")),
    };
    let mut declared = Declared {
        spec,
        place: filled.place.clone(),
        places: BTreeMap::new(),
        sensitive: Vec::new(),
    };
    collect_places(filled, "", &mut declared);
    Some((name, declared))
}

fn collect_places(block: &Filled, prefix: &str, declared: &mut Declared) {
    for (name, setting) in &block.attributes {
        let path = format!("{prefix}{name}");
        if setting.sensitive {
            declared.sensitive.push(path.clone());
        }
        declared.places.insert(path, setting.place.clone());
    }
    for inner in &block.blocks {
        let path = match &inner.label {
            Some((label, _)) => format!("{prefix}{}[{label:?}]", inner.schema.name),
            None => format!("{prefix}{}", inner.schema.name),
        };
        collect_places(inner, &format!("{path}."), declared);
        declared.places.insert(path, inner.place.clone());
    }
}

fn setting<'a>(block: Option<&'a Filled>, name: &str) -> Option<&'a Checked> {
    block?.attributes.get(name).map(|setting| &setting.value)
}

fn flag(block: Option<&Filled>, name: &str) -> Option<bool> {
    if let Some(Checked::Flag(flag)) = setting(block, name) { Some(*flag) } else { None }
}

fn whole(block: Option<&Filled>, name: &str) -> Option<u32> {
    if let Some(Checked::Whole(whole)) = setting(block, name) { Some(*whole) } else { None }
}

fn text(block: Option<&Filled>, name: &str) -> Option<String> {
    if let Some(Checked::Text(text)) = setting(block, name) { Some(text.clone()) } else { None }
}

fn length(block: Option<&Filled>, name: &str) -> Option<Length> {
    if let Some(Checked::Length(length)) = setting(block, name) { Some(*length) } else { None }
}

fn file(block: Option<&Filled>, name: &str) -> Option<PathBuf> {
    if let Some(Checked::File(file)) = setting(block, name) { Some(file.clone()) } else { None }
}

fn rate(block: Option<&Filled>, name: &str) -> Option<RateLimit> {
    if let Some(Checked::Rate(rate)) = setting(block, name) { Some(*rate) } else { None }
}

fn secret(block: Option<&Filled>, name: &str) -> Option<SecretRef> {
    if let Some(Checked::Secret(secret)) = setting(block, name) {
        Some(secret.clone())
    } else {
        None
    }
}

fn uri(block: &Filled) -> Option<&MongoUri> {
    if let Some(Checked::Uri(uri)) = setting(Some(block), "uri") { Some(uri) } else { None }
}

fn patterns(block: Option<&Filled>, name: &str) -> Vec<NamespacePattern> {
    if let Some(Checked::Patterns(patterns)) = setting(block, name) {
        patterns.clone()
    } else {
        Vec::new()
    }
}

/// One of a few texts, as the spec's own type reads it; a test holds the schema's texts against
/// those types.
fn choice<T: DeserializeOwned>(block: Option<&Filled>, name: &str) -> Option<T> {
    let text = text(block, name)?;
    Some(
        serde_json::from_value(text.into())
            .expect("the schema lists only texts that the type reads"),
    )
}

fn connection(block: &Filled) -> Option<ConnectionSpec> {
    Some(ConnectionSpec {
        uri: uri(block)?.as_str().to_owned(),
        username: text(Some(block), "username"),
        password: secret(Some(block), "password"),
        tls: block.block("tls").map(|tls| TlsSpec {
            ca_file: file(Some(tls), "ca_file"),
            certificate_key_file: file(Some(tls), "certificate_key_file"),
        }),
    })
}

fn namespaces(block: Option<&Filled>) -> NamespacesSpec {
    NamespacesSpec {
        scope: Scope { include: patterns(block, "include"), exclude: patterns(block, "exclude") },
        include_users: flag(block, "include_users").unwrap_or(false),
    }
}

fn copy(block: Option<&Filled>) -> CopySpec {
    let default = CopySpec::default();
    CopySpec {
        parallelism: whole(block, "parallelism")
            .map(|whole| u16::try_from(whole).expect("the schema's bound is 256")),
        indexes: choice(block, "indexes").unwrap_or(default.indexes),
        rate_limit: rate(block, "rate_limit"),
    }
}

fn cutover(block: Option<&Filled>) -> CutoverSpec {
    let default = CutoverSpec::default();
    CutoverSpec {
        window: length(block, "window").unwrap_or(default.window),
        extensions: whole(block, "extensions").unwrap_or(default.extensions),
        max_lag: length(block, "max_lag").unwrap_or(default.max_lag),
        max_downtime: length(block, "max_downtime").unwrap_or(default.max_downtime),
        source_writes: choice(block, "source_writes").unwrap_or(default.source_writes),
        source_after: choice(block, "source_after").unwrap_or(default.source_after),
        acknowledge: text(block, "acknowledge")
            .map(|token| token.trim().to_owned())
            .filter(|token| !token.is_empty()),
    }
}

/// The rules that span several attributes.
struct Rules<'a> {
    context: &'a str,
    report: &'a mut Report,
}

impl Rules<'_> {
    fn add(&mut self, diagnostic: Diagnostic, place: &Place, block: &str) {
        let context = if block.is_empty() {
            self.context.to_owned()
        } else {
            format!("{}, block {block}", self.context)
        };
        self.report.add(diagnostic.at(place.clone()).within(&context));
    }

    fn connection(&mut self, block: &Filled) {
        let side = block.schema.name;
        let tls = block.block("tls");
        let uri_setting = block.attributes.get("uri");
        let (Some(uri), Some(Setting { place: uri_place, .. })) = (uri(block), uri_setting) else {
            return;
        };
        for option in uri.unchecked_tls() {
            let detail = "Anybody on the way can read and change what is carried, the password \
                 too. Name the authority in tls.ca_file.";
            self.add(
                Diagnostic::warning(
                    format!("{option}=true switches the check of the server off"),
                    detail,
                ),
                uri_place,
                side,
            );
        }
        let without_effect: Vec<&str> = uri.without_effect().collect();
        if !without_effect.is_empty() {
            let plural = if without_effect.len() > 1 { ("s", "have") } else { ("", "has") };
            let summary = format!(
                "the URI's option{} {} {} no effect",
                plural.0,
                without_effect.join(", "),
                plural.1
            );
            let detail = "They may stay. The daemon chooses these itself: it reads and writes with \
                 majority, at the primary or where it says so, carries documents as they are, and \
                 bounds each wait by a time of its own.";
            self.add(Diagnostic::warning(summary, detail), uri_place, side);
        }
        let (username, password) =
            (block.attributes.get("username"), block.attributes.get("password"));
        let (name, ca_file, key_file) = (
            text(Some(block), "username"),
            file(tls, "ca_file"),
            file(tls, "certificate_key_file"),
        );
        if block.has("username") && name.is_none() {
            // That is said of the name itself.
            return;
        }
        let beside = Beside {
            username: name.as_deref(),
            has_password: block.has("password"),
            tls: tls.map(|_| (ca_file.as_deref(), key_file.as_deref())),
        };
        for Conflict { part, error, with_tls } in uri.login(&beside).err().unwrap_or_default() {
            let setting = match part {
                Part::Uri => None,
                Part::Username => username,
                Part::Password => password,
            };
            let mut diagnostic = Diagnostic::error(error.summary, error.detail);
            if let Some(tls) = tls.filter(|_| with_tls) {
                diagnostic = diagnostic.related_to("the tls block", tls.place.clone());
            }
            self.add(diagnostic, setting.map_or(uri_place, |setting| &setting.place), side);
        }
    }

    fn deployments(&mut self, source: &Filled, destination: &Filled) {
        let (Some(from), Some(to)) = (uri(source), uri(destination)) else { return };
        if from.shares_host_with(to)
            && let (Some(from), Some(to)) =
                (source.attributes.get("uri"), destination.attributes.get("uri"))
        {
            let diagnostic = Diagnostic::error(
                "source and destination are the same deployment",
                "Both URIs name the same host. Correct one of the two: the data would be copied \
                 onto itself.",
            );
            let diagnostic = diagnostic
                .with_code(FaultCode::SameDeployment)
                .related_to("the source", from.place.clone());
            self.add(diagnostic, &to.place, "destination");
        }
    }

    fn namespaces(&mut self, migration: &Filled) {
        let Some(block) = migration.block("namespaces") else { return };
        let Some(include) = block.attributes.get("include") else { return };
        for pattern in patterns(Some(block), "include") {
            let text = pattern.to_string();
            let db = text.split('.').next().unwrap_or_default();
            if SYSTEM_DATABASES.contains(&db) || db == OWN_DATABASE {
                let summary = format!("{} includes nothing", quoted(&text));
                let detail = format!(
                    "The database {db} is the server's own or cutover's, and never carried."
                );
                self.add(Diagnostic::warning(summary, detail), &include.place, "namespaces");
            }
        }
    }

    fn cutover(&mut self, migration: &Filled) {
        let Some(block) = migration.block("cutover") else { return };
        let Some(Setting { value: Checked::Text(token), place, .. }) =
            block.attributes.get("acknowledge")
        else {
            return;
        };
        if token.trim().is_empty() {
            let detail = "An empty token acknowledges nothing. Write null, or leave the attribute \
                 out, until there is a token.";
            self.add(Diagnostic::warning("acknowledge is empty", detail), place, "cutover");
        } else if let Some(Setting { value: Checked::Flag(true), place: paused, .. }) =
            migration.attributes.get("paused")
        {
            let detail = "A paused run does not become ready, and only a ready one cuts over. \
                 Remove paused first.";
            let diagnostic = Diagnostic::warning(
                "acknowledge has no effect while the migration is paused",
                detail,
            );
            self.add(diagnostic.related_to("it is paused here", paused.clone()), place, "cutover");
        }
    }

    fn sharding(&mut self, block: &Filled, scope: &Scope) -> ShardingSpec {
        let mut collections: Vec<ShardKeySpec> = Vec::new();
        let mut first_places: BTreeMap<Namespace, Place> = BTreeMap::new();
        for collection in &block.blocks {
            let Some((label, place)) = &collection.label else { continue };
            let Ok(namespace) = label.parse::<Namespace>() else {
                let summary = format!("{} is not a namespace", quoted(label));
                self.add(
                    Diagnostic::error(summary, "Write the label as \"db.collection\"."),
                    place,
                    "sharding",
                );
                continue;
            };
            if let Some(first) = first_places.get(&namespace) {
                let diagnostic = Diagnostic::error(
                    format!("the collection {} stands twice", quoted(label)),
                    "Remove one of them.",
                );
                self.add(diagnostic.related_to("the first one", first.clone()), place, "sharding");
                continue;
            }
            first_places.insert(namespace.clone(), place.clone());
            if !scope.contains(&namespace) {
                let detail = "The block `namespaces` leaves it out, so that it is not carried. \
                     Correct one of the two.";
                self.add(
                    Diagnostic::warning(format!("{} is not in scope", quoted(label)), detail),
                    place,
                    "sharding",
                );
            }
            if let Some(Checked::Texts(key)) = setting(Some(collection), "key") {
                collections.push(ShardKeySpec { namespace, key: key.clone() });
            }
        }
        let balancer = choice(Some(block), "balancer").unwrap_or(crate::spec::Balancer::RequireOff);
        ShardingSpec { balancer, collections }
    }
}
