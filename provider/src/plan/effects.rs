//! What an action will do to data, in words. Every figure is the daemon's; what is not known is
//! said to be unknown.

use schemas::hcl::Declared;
use schemas::namespace::Namespace;
use schemas::observed::{Forecast, Inspection, Observed};
use schemas::phase::Phase;
use schemas::principal::{Principal, PrincipalKind};
use schemas::spec::{
    Balancer, ExistingData, IndexBuild, MigrationSpec, SourceAfter, SourceWrites, VerifyMode,
};
use schemas::time::UtcTime;

use super::AttributeChange;
use crate::units;

/// What a first run will do.
pub(super) fn of_create(wanted: &Declared, inspection: Option<&Inspection>) -> Vec<String> {
    let mut effects = vec![existing_data(&wanted.spec, inspection, &[])];
    effects.extend(of_copy(wanted, inspection));
    effects
}

/// What every run from scratch does.
fn of_copy(wanted: &Declared, inspection: Option<&Inspection>) -> Vec<String> {
    let spec = &wanted.spec;
    let mut effects = vec![reads(wanted, inspection.and_then(|found| found.forecast.as_ref()))];
    if let Some(rate) = spec.copy.rate_limit.filter(|_| !is_sensitive(wanted, "copy.rate_limit")) {
        effects.push(format!("reads no faster than {rate}, over all readers together"));
    }
    effects.push(writes(wanted));
    effects.push(write_block(spec, inspection));
    effects.extend(sharding(spec));
    effects.push(match spec.verify.mode {
        VerifyMode::Full => "compares every document of both sides, byte for byte, before it says \
             ready"
            .to_owned(),
        VerifyMode::Off => {
            "does not compare the copy with the source: verify.mode is \"off\", so that a \
             difference would go unseen"
                .to_owned()
        }
    });
    if spec.paused {
        effects.push("starts held: nothing is read or written until `paused = false`".to_owned());
    }
    effects.push(
        "leaves the source open to its application until a cutover is acknowledged".to_owned(),
    );
    effects
}

/// What a new generation will do: it undoes the earlier run first.
pub(super) fn of_rerun(
    wanted: &Declared,
    existing: &Observed,
    inspection: Option<&Inspection>,
) -> Vec<String> {
    let status = &existing.status;
    let mut effects = Vec::new();
    if status.phase == Phase::Completed {
        effects.push(format!(
            "throws away a completed migration: run {} handed {} over to its users, and what they \
             wrote there since is lost",
            status.run,
            destination(&existing.spec, wanted)
        ));
        if keeps_source(existing) {
            effects.push(format!(
                "opens {} to writes again, which that run has left blocked",
                source(&existing.spec, wanted)
            ));
        }
    } else if !matches!(status.phase, Phase::Cancelled | Phase::Failed | Phase::Expired) {
        effects.push(format!(
            "stops run {}, which is {}, and throws its copy away",
            status.run, status.phase
        ));
    }
    let created = &existing.created_namespaces;
    if created.is_empty() {
        effects.push(format!(
            "drops nothing of the earlier run: {} has created nothing on the destination",
            status.run
        ));
    } else {
        let names: Vec<String> = created.iter().map(ToString::to_string).collect();
        effects.push(format!(
            "drops {} on the destination, created by run {}: {}",
            things(created, ""),
            status.run,
            names.join(", ")
        ));
    }
    effects.push(existing_data(&wanted.spec, inspection, created));
    effects.extend(of_copy(wanted, inspection));
    effects
}

/// The source's hosts, for sentences; not where they are sensitive.
fn source(spec: &MigrationSpec, wanted: &Declared) -> String {
    if is_sensitive(wanted, "source.uri") {
        "the source".to_owned()
    } else {
        units::hosts(&spec.source.connection.uri)
    }
}

/// The destination's hosts, for sentences; not where they are sensitive.
fn destination(spec: &MigrationSpec, wanted: &Declared) -> String {
    if is_sensitive(wanted, "destination.uri") {
        "the destination".to_owned()
    } else {
        units::hosts(&spec.destination.connection.uri)
    }
}

fn is_sensitive(wanted: &Declared, path: &str) -> bool {
    wanted.sensitive.iter().any(|one| one == path)
}

fn reads(wanted: &Declared, forecast: Option<&Forecast>) -> String {
    let source = source(&wanted.spec, wanted);
    match forecast {
        Some(forecast) => format!(
            "reads {} with {} ({}) from {source}",
            units::counted(forecast.collections, "collection"),
            units::counted(forecast.documents, "document"),
            units::bytes(forecast.bytes)
        ),
        None => format!("reads what is in scope from {source}; how much that is, is not known"),
    }
}

/// What becomes of data that is on the destination, other than what an earlier run created.
fn existing_data(
    spec: &MigrationSpec,
    inspection: Option<&Inspection>,
    created: &[Namespace],
) -> String {
    let other = if created.is_empty() { "" } else { "other " };
    match (spec.destination.existing_data, inspection) {
        (ExistingData::Refuse, _) => {
            format!(
                "drops no {other}data on the destination: it does not start where some is there \
                 in scope"
            )
        }
        (ExistingData::Drop, None) => {
            format!(
                "drops what {other}data is in scope on the destination; which collections those \
                 are, is not known"
            )
        }
        (ExistingData::Drop, Some(found)) => {
            let drops: Vec<&Namespace> =
                found.drops.iter().filter(|one| !created.contains(one)).collect();
            if drops.is_empty() {
                return format!("drops no {other}data on the destination: none is there in scope");
            }
            let names: Vec<String> = drops.iter().map(ToString::to_string).collect();
            format!("drops {} on the destination: {}", things(drops, other), names.join(", "))
        }
    }
}

/// How many collections, users and roles these are, in words.
fn things<'a>(namespaces: impl IntoIterator<Item = &'a Namespace>, other: &str) -> String {
    let (mut collections, mut users, mut roles) = (0, 0, 0);
    for namespace in namespaces {
        *match Principal::of(namespace).map(|principal| principal.kind) {
            None => &mut collections,
            Some(PrincipalKind::User) => &mut users,
            Some(PrincipalKind::Role) => &mut roles,
        } += 1;
    }
    let kinds = [(collections, "collection"), (users, "user"), (roles, "role")];
    let words: Vec<String> = kinds
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, noun)| units::counted(count, &format!("{other}{noun}")))
        .collect();
    match words.split_last() {
        None => "nothing".to_owned(),
        Some((last, [])) => last.clone(),
        Some((last, first)) => format!("{} and {last}", first.join(", ")),
    }
}

fn writes(wanted: &Declared) -> String {
    let spec = &wanted.spec;
    let destination = destination(spec, wanted);
    let users = if spec.namespaces.include_users {
        ", and the users and roles of their databases"
    } else {
        ""
    };
    let indexes = match spec.copy.indexes {
        IndexBuild::AfterCopy => "after",
        IndexBuild::BeforeCopy => "before",
    };
    format!("creates them on {destination}{users}; indexes are built {indexes} the documents")
}

fn write_block(spec: &MigrationSpec, inspection: Option<&Inspection>) -> String {
    let access_control = inspection.and_then(|found| found.destination_access_control);
    match (spec.destination.block_writes, access_control) {
        (Some(false), _) => {
            "does not keep others from writing to the destination: block_writes is false".to_owned()
        }
        (Some(true), _) | (None, Some(true)) => "keeps others from writing to the destination \
             until the cutover"
            .to_owned(),
        (None, Some(false)) => "does not keep others from writing to the destination: it has no \
             access control, so that it cannot tell the daemon from them"
            .to_owned(),
        (None, None) => "keeps others from writing to the destination if it has access control, \
             which could not be seen"
            .to_owned(),
    }
}

fn sharding(spec: &MigrationSpec) -> Vec<String> {
    let Some(sharding) = &spec.sharding else { return Vec::new() };
    let balancer = match sharding.balancer {
        Balancer::RequireOff => "needs a sharded source's balancer to be off, and leaves it so",
        Balancer::Manage => {
            "stops a sharded source's balancer for the run and gives it back after it"
        }
    };
    let keys = sharding.collections.iter().map(|collection| {
        format!("shards {} by {} on the destination", collection.namespace, collection.in_words())
    });
    [balancer.to_owned()].into_iter().chain(keys).collect()
}

/// What holding a run does.
pub(super) fn of_pause(existing: &Observed) -> Vec<String> {
    let status = &existing.status;
    let mut effects = vec![format!(
        "holds run {}, which is {}: nothing is copied or applied until it is resumed",
        status.run, status.phase
    )];
    if existing.balancer_held {
        effects.push("keeps the source's balancer stopped meanwhile".to_owned());
    }
    for shard in &status.shards {
        effects.push(match shard.oplog_window_seconds {
            Some(window) => format!(
                "{}'s oplog spans {}: a longer pause loses the place to go on from",
                shard.name,
                units::whole_seconds(window)
            ),
            None => {
                format!(
                    "how long {}'s oplog lasts is not known; a pause beyond it loses the \
                     place to go on from",
                    shard.name
                )
            }
        });
    }
    effects
}

/// What letting a run go on does.
pub(super) fn of_resume(existing: &Observed) -> Vec<String> {
    vec![format!("lets run {} go on from where it was held", existing.status.run)]
}

/// What cutting over does.
pub(super) fn of_cut_over(wanted: &Declared, existing: &Observed) -> Vec<String> {
    let spec = &wanted.spec;
    let (source, destination) = (source(spec, wanted), destination(spec, wanted));
    let downtime = match existing.expected_downtime_seconds {
        Some(seconds) => format!("expected downtime {}", units::estimate(seconds)),
        None => "the expected downtime is not known".to_owned(),
    };
    let cutover = &spec.cutover;
    let lag = existing
        .status
        .lag_seconds
        .map(|lag| format!(" (lag now {})", units::seconds(lag)))
        .unwrap_or_default();
    let mut effects = vec![
        match cutover.source_writes {
            SourceWrites::Block => format!("blocks all writes on {source}; {downtime}"),
            SourceWrites::Observe => {
                format!(
                    "waits for the application to stop writing to {source}, which is watched and \
                     not blocked; {downtime}"
                )
            }
        },
        format!("applies what is left{lag}, and proves that the last write has arrived"),
    ];
    effects.push(match cutover.source_writes {
        SourceWrites::Block => {
            format!(
                "gives up past {}: the source takes writes again, the run is ready again",
                cutover.max_downtime
            )
        }
        SourceWrites::Observe => {
            format!(
                "gives up past {}, or when writes keep coming: the run is ready again",
                cutover.max_downtime
            )
        }
    });
    effects.extend(
        existing
            .deferred_settings
            .iter()
            .map(|setting| format!("gives back on the destination: {setting}")),
    );
    effects.push(format!(
        "opens {destination} to its users; what they write there does not flow back, so that this \
         cannot be undone"
    ));
    effects.push(source_after(spec));
    effects.extend(balancer_back(existing));
    effects
}

/// What becomes of a balancer that the run has stopped.
fn balancer_back(existing: &Observed) -> Option<String> {
    existing
        .balancer_held
        .then(|| "gives the source's balancer back, which the run has stopped".to_owned())
}

fn source_after(spec: &MigrationSpec) -> String {
    match (spec.cutover.source_writes, spec.cutover.source_after) {
        (SourceWrites::Block, SourceAfter::Blocked) => "leaves the source blocked once completed: \
             a forgotten writer gets an error; source_after = \"open\", or removing the block, \
             opens it"
            .to_owned(),
        (SourceWrites::Block, SourceAfter::Open) => "opens the source to writes again once \
             completed: what a forgotten writer writes there is lost to the destination"
            .to_owned(),
        (SourceWrites::Observe, _) => "leaves the source unblocked, as it is: what a forgotten \
             writer writes there is lost to the destination"
            .to_owned(),
    }
}

/// What removing the block of a run that is not over does.
pub(super) fn of_cancel(existing: &Observed) -> Vec<String> {
    let status = &existing.status;
    vec![
        format!("stops run {}, which is {}, for good", status.run, status.phase),
        "leaves what was copied on the destination, and opens it to its users".to_owned(),
        match existing.balancer_held {
            true => "leaves the source as it is, but for its balancer, which the run has stopped \
                 and now gives back"
                .to_owned(),
            false => "leaves the source as it is".to_owned(),
        },
    ]
}

/// What removing the block of a run that is over does.
pub(super) fn of_forget(existing: &Observed) -> Vec<String> {
    let status = &existing.status;
    let mut effects = vec![format!(
        "forgets run {}, which is {}; the data of both sides stays",
        status.run, status.phase
    )];
    if keeps_source(existing) {
        effects.push(
            "opens the source to writes again: what a forgotten writer writes there is lost to the \
             destination"
                .to_owned(),
        );
    }
    effects
}

/// Whether a run has left the source blocked behind it.
fn keeps_source(existing: &Observed) -> bool {
    let cutover = &existing.spec.cutover;
    existing.status.phase == Phase::Completed
        && cutover.source_writes == SourceWrites::Block
        && cutover.source_after == SourceAfter::Blocked
}

/// What changed settings do to a run that goes on.
pub(super) fn of_update(
    spec: &MigrationSpec,
    existing: &Observed,
    changes: &[AttributeChange],
    now: UtcTime,
) -> Vec<String> {
    let status = &existing.status;
    let changed = |prefix: &str| changes.iter().any(|change| change.path.starts_with(prefix));
    let over = status.phase == Phase::Completed;
    let mut effects = Vec::new();
    if changed("source.uri") && !over {
        effects.push(
            "connects anew to the source; a deployment other than the one that the run began with \
             is refused before anything is read"
                .to_owned(),
        );
    }
    if changed("copy.") {
        effects.push(match status.phase {
            Phase::Validating | Phase::Copying | Phase::Paused => {
                "changes how fast the copy reads from here on".to_owned()
            }
            Phase::CatchingUp
            | Phase::Ready
            | Phase::Draining
            | Phase::Finalizing
            | Phase::Completed
            | Phase::Cancelled
            | Phase::Failed
            | Phase::Expired => format!(
                "changes nothing now: run {} is {} and has copied",
                status.run, status.phase
            ),
        });
    }
    if changed("cutover.window") || changed("cutover.extensions") {
        effects.extend(window(spec, existing, now));
    }
    if changed("cutover.max_lag") && !over {
        effects.push(format!(
            "counts as ready with a lag under {} from here on",
            spec.cutover.max_lag
        ));
    }
    if changed("cutover.source_after") && over && spec.cutover.source_writes == SourceWrites::Block
    {
        effects.push(match spec.cutover.source_after {
            SourceAfter::Open => {
                "opens the source to writes again: what a forgotten writer writes there is lost \
                 to the destination"
                    .to_owned()
            }
            SourceAfter::Blocked => "does not block the source again: it was opened when the run \
                 was completed"
                .to_owned(),
        });
    }
    if status.acknowledge_token.is_some()
        && changes
            .iter()
            .any(|change| !matches!(change.path.as_str(), "paused" | "cutover.acknowledge"))
    {
        effects.push(
            "makes the token that is given out now worthless: a new one comes with this change"
                .to_owned(),
        );
    }
    effects
}

/// When the window would close with a changed declaration; `None` before it has opened.
pub(super) fn deadline(spec: &MigrationSpec, existing: &Observed) -> Option<UtcTime> {
    let day = std::time::Duration::from_secs(24 * 3600);
    // Declaring what was granted by hand makes it official instead of granting it twice.
    let declared_more = spec.cutover.extensions.saturating_sub(existing.spec.cutover.extensions);
    let by_hand = existing.by_hand.extensions.saturating_sub(declared_more);
    let extensions = spec.cutover.extensions.saturating_add(by_hand);
    let opened = existing.status.window.opened_at?;
    Some(opened.plus(spec.cutover.window.get()).plus(day.saturating_mul(extensions)))
}

/// What becomes of the deadline.
fn window(spec: &MigrationSpec, existing: &Observed, now: UtcTime) -> Vec<String> {
    let status = &existing.status;
    if matches!(status.phase, Phase::Completed | Phase::Cancelled) {
        return vec![format!("changes nothing: run {} is {}", status.run, status.phase)];
    }
    let Some(deadline) = deadline(spec, existing) else {
        return vec![
            "moves no deadline yet: the window opens when the run is first ready".to_owned(),
        ];
    };
    let before = status.window.expires_at.map(|at| format!(" instead of {at}")).unwrap_or_default();
    if status.window.expires_at == Some(deadline) {
        return vec![format!("leaves the window's end at {deadline}, as it is by hand already")];
    }
    let mut effects = vec![format!("closes the window at {deadline}{before}")];
    if deadline <= now {
        effects.push(match status.phase {
            Phase::Expired => "leaves the run expired: the new deadline has passed too".to_owned(),
            Phase::Validating
            | Phase::Copying
            | Phase::CatchingUp
            | Phase::Ready
            | Phase::Draining
            | Phase::Finalizing
            | Phase::Completed
            | Phase::Paused
            | Phase::Cancelled
            | Phase::Failed => "lets the window close at once: that deadline has passed".to_owned(),
        });
    } else if status.phase == Phase::Expired {
        effects.push(match existing.resume_point_held {
            Some(true) => {
                "takes the run up again from where it stood: the source still holds that place"
                    .to_owned()
            }
            // A place that is lost is refused before.
            Some(false) | None => {
                "takes the run up again, if the source still holds the place to go on from"
                    .to_owned()
            }
        });
    }
    effects
}
