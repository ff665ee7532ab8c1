//! Carries users and roles that are defined in the databases in scope, where a migration asks for
//! it (`include_users`).
//!
//! The change stream does not report them, and they are few: they are read whole when the sync
//! starts, before the cutover, and once more when the source takes no more writes, and the
//! destination is given what differs. Users go as the source keeps them, credentials and all, so
//! that their passwords stay good; the server offers no command for that, and lets who has the role
//! `restore` write them. Roles go by commands, each after those that it inherits from. Nothing is
//! touched that this run did not make.

use std::collections::{BTreeMap, BTreeSet};

use mongodb::bson::{Bson, Document, RawArrayBuf, RawDocumentBuf, doc, rawdoc};
use schemas::fault::{Fault, FaultCode};
use schemas::namespace::{Namespace, Scope};
use schemas::principal::{Principal, PrincipalKind};

use crate::engine::checkpoint::Checkpoints;
use crate::engine::element;
use crate::engine::progress::Progress;
use crate::mongo::{Deployment, append, command, error, server_code};

/// The database in which a server keeps all users and roles.
const ADMIN: &str = "admin";
/// What a role is given, beside its name.
const OF_ROLE: [&str; 3] = ["privileges", "roles", "authenticationRestrictions"];
/// Names of one message at most.
const NAMED: usize = 5;

/// Users and roles, as a server keeps them.
pub type Principals = BTreeMap<Principal, RawDocumentBuf>;

/// The users and roles of the databases in scope.
pub async fn list(deployment: &Deployment, scope: &Scope) -> Result<Principals, Fault> {
    let mut found = Principals::new();
    for kind in [PrincipalKind::User, PrincipalKind::Role] {
        let mut find = command("find", kind.collection());
        append(&mut find, "readConcern", &*rawdoc! { "level": "majority" });
        let listed = deployment.collect(ADMIN, find).await.map_err(|e| {
            deployment
                .fault(&format!("reading the {}s (admin.{})", kind.as_str(), kind.collection()), &e)
        })?;
        for document in listed {
            let text = |field: &str| element::text(&document, field).unwrap_or_default();
            let (db, name) = (text("db"), text(kind.as_str()));
            let is_odd =
                [db, name].iter().any(|text| text.is_empty() || std::str::from_utf8(text).is_err());
            let (db, name) = (element::shown(db), element::shown(name));
            if !scope.has_principals_of(&db) {
                continue;
            }
            if is_odd {
                let message = format!(
                    "the {} has a {} whose name is no UTF-8: {name} of {db}",
                    deployment.side,
                    kind.as_str()
                );
                return Err(Fault::new(FaultCode::UnsupportedNamespace, message)
                    .with_remedy("give it another name, or leave users out (include_users)"));
            }
            found.insert(Principal { kind, db, name }, document);
        }
    }
    Ok(found)
}

/// The roles that users in `principals` hold and that neither come along nor are on the
/// destination: who holds which.
pub async fn homeless_roles(
    principals: &Principals,
    destination: &Deployment,
) -> Result<Vec<String>, Fault> {
    let mut wanted: BTreeMap<(String, String), Vec<&Principal>> = BTreeMap::new();
    for (principal, document) in principals {
        for (db, role) in roles_of(document) {
            let carried = Principal { kind: PrincipalKind::Role, db, name: role };
            if !principals.contains_key(&carried) {
                wanted.entry((carried.db, carried.name)).or_default().push(principal);
            }
        }
    }
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let asked: Vec<Bson> =
        wanted.keys().map(|(db, role)| doc! { "role": role, "db": db }.into()).collect();
    let reply = destination
        .command(ADMIN, doc! { "rolesInfo": asked })
        .await
        .map_err(|e| destination.fault("looking for the roles that users hold", &e))?;
    for known in reply.get_array("roles").into_iter().flatten().filter_map(Bson::as_document) {
        if let (Ok(db), Ok(role)) = (known.get_str("db"), known.get_str("role")) {
            wanted.remove(&(db.to_owned(), role.to_owned()));
        }
    }
    let homeless = |((db, role), holders): ((String, String), Vec<&Principal>)| {
        let more = holders.len().saturating_sub(1);
        let others = if more > 0 { format!(" and {more} more") } else { String::new() };
        holders.first().map(|first| format!("{first}{others} has the role {role} of {db}"))
    };
    Ok(wanted.into_iter().filter_map(homeless).collect())
}

/// The fault for users whose roles would be missing.
pub fn refusal(homeless: &[String]) -> Fault {
    let message = format!("{}, which neither is in scope nor on the destination", some(homeless));
    Fault::new(FaultCode::UnsupportedNamespace, message).with_remedy(
        "make the roles on the destination, take them from the users, or leave the users out \
         (include_users = false)",
    )
}

/// The database in which the user is defined that is logged in; `None` where nobody is.
pub async fn own_database(deployment: &Deployment) -> Result<Option<String>, Fault> {
    let status = deployment
        .command(ADMIN, doc! { "connectionStatus": 1 })
        .await
        .map_err(|e| deployment.fault("asking who is logged in", &e))?;
    let users =
        status.get_document("authInfo").and_then(|info| info.get_array("authenticatedUsers")).ok();
    Ok(users.and_then(|users| users.first()?.as_document()?.get_str("db").ok().map(str::to_owned)))
}

/// Gives the destination the source's users and roles.
pub async fn carry(
    source: &Deployment,
    destination: &Deployment,
    scope: &Scope,
    checkpoints: &Checkpoints,
    progress: &Progress,
) -> Result<(), Fault> {
    let (wanted, there) = tokio::try_join!(list(source, scope), list(destination, scope))?;
    let homeless = homeless_roles(&wanted, destination).await?;
    if !homeless.is_empty() {
        return Err(refusal(&homeless));
    }
    let ours = progress.created();
    let differing: Vec<&Principal> = in_order(&wanted)
        .into_iter()
        .filter(|principal| {
            there
                .get(*principal)
                .is_none_or(|there| !is_same(principal.kind, &wanted[*principal], there))
        })
        .collect();
    let foreign: Vec<String> = differing
        .iter()
        .filter(|principal| {
            there.contains_key(**principal) && !ours.contains(&principal.namespace())
        })
        .map(ToString::to_string)
        .collect();
    if !foreign.is_empty() {
        let message = format!(
            "the destination has a {} already, which this run did not make",
            some(&foreign)
        );
        return Err(Fault::new(FaultCode::DestinationNotEmpty, message));
    }
    let new: Vec<Namespace> = differing.iter().map(|principal| principal.namespace()).collect();
    checkpoints.store_created(new.clone()).await?;
    progress.add_created(new);
    for principal in differing {
        tracing::info!(%principal, "giving it to the destination");
        match principal.kind {
            PrincipalKind::User => put_user(destination, principal, &wanted[principal]).await?,
            PrincipalKind::Role => {
                put_role(destination, principal, &wanted[principal], there.contains_key(principal))
                    .await?
            }
        }
    }
    for principal in there.keys().filter(|principal| {
        !wanted.contains_key(*principal) && ours.contains(&principal.namespace())
    }) {
        tracing::info!(%principal, "not on the source any more");
        drop_one(destination, principal).await?;
    }
    Ok(())
}

/// Whether both sides have the same users and roles, else which differ.
pub async fn compare(
    source: &Deployment,
    destination: &Deployment,
    scope: &Scope,
) -> Result<(), Fault> {
    let (wanted, there) = tokio::try_join!(list(source, scope), list(destination, scope))?;
    let all: BTreeSet<&Principal> = wanted.keys().chain(there.keys()).collect();
    let differing: Vec<String> = all
        .into_iter()
        .filter(|principal| match (wanted.get(*principal), there.get(*principal)) {
            (Some(wanted), Some(there)) => !is_same(principal.kind, wanted, there),
            _ => true,
        })
        .map(ToString::to_string)
        .collect();
    if differing.is_empty() {
        return Ok(());
    }
    let message =
        format!("not the same on both sides after everything was applied: {}", some(&differing));
    let mut fault = Fault::new(FaultCode::VerificationMismatch, message);
    // Somebody may have changed one just now; the next try reads them again.
    fault.retryable = true;
    Err(fault)
}

/// Drops a user or role; one that is not there is a success.
pub async fn drop_one(destination: &Deployment, principal: &Principal) -> Result<(), Fault> {
    let (verb, missing) = match principal.kind {
        PrincipalKind::User => ("dropUser", server_code::USER_NOT_FOUND),
        PrincipalKind::Role => ("dropRole", server_code::ROLE_NOT_FOUND),
    };
    let drop = doc! { verb: &principal.name, "writeConcern": { "w": "majority" } };
    match destination.command(&principal.db, drop).await {
        Ok(_) => Ok(()),
        Err(e) if error::code(&e) == Some(missing) => Ok(()),
        Err(e) => Err(destination.fault(&format!("dropping the {principal}"), &e)),
    }
}

/// The first few, for a message.
fn some(names: &[String]) -> String {
    let more = if names.len() > NAMED {
        format!(", and {} more", names.len() - NAMED)
    } else {
        String::new()
    };
    format!("{}{more}", names.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", "))
}

/// The roles that a user holds or a role inherits: database and name.
fn roles_of(document: &RawDocumentBuf) -> Vec<(String, String)> {
    let Ok(roles) = document.get_array("roles") else { return Vec::new() };
    let role = |role: mongodb::bson::RawBsonRef<'_>| {
        let role = role.as_document()?;
        Some((role.get_str("db").ok()?.to_owned(), role.get_str("role").ok()?.to_owned()))
    };
    roles.into_iter().flatten().filter_map(role).collect()
}

/// Roles, each after those that it inherits from, then users.
fn in_order(principals: &Principals) -> Vec<&Principal> {
    fn add<'p>(
        principals: &'p Principals,
        principal: &'p Principal,
        seen: &mut BTreeSet<&'p Principal>,
        order: &mut Vec<&'p Principal>,
    ) {
        // A role that is met again was added, or is under way: the server allows no circles.
        if !seen.insert(principal) {
            return;
        }
        for (db, name) in principals.get(principal).map(roles_of).unwrap_or_default() {
            let inherited = Principal { kind: PrincipalKind::Role, db, name };
            if let Some((inherited, _)) = principals.get_key_value(&inherited) {
                add(principals, inherited, seen, order);
            }
        }
        order.push(principal);
    }
    let (mut seen, mut order) = (BTreeSet::new(), Vec::new());
    for kind in [PrincipalKind::Role, PrincipalKind::User] {
        for principal in principals.keys().filter(|principal| principal.kind == kind) {
            add(principals, principal, &mut seen, &mut order);
        }
    }
    order
}

/// Whether both servers keep the same. A user is compared byte for byte; a role by its parts, which
/// a server puts in an order of its own.
fn is_same(kind: PrincipalKind, ours: &RawDocumentBuf, theirs: &RawDocumentBuf) -> bool {
    match kind {
        PrincipalKind::User => ours == theirs,
        PrincipalKind::Role => part_texts(ours) == part_texts(theirs),
    }
}

fn part_texts(role: &RawDocumentBuf) -> Vec<Vec<String>> {
    let texts = |items: &[Bson]| {
        let mut texts: Vec<String> = items.iter().map(|item| sorted(item).to_string()).collect();
        texts.sort();
        texts
    };
    let Ok(role) = Document::try_from(&**role) else { return vec![vec![format!("{role:?}")]] };
    OF_ROLE
        .iter()
        .map(|part| role.get_array(part).map(|items| texts(items)).unwrap_or_default())
        .collect()
}

/// The same with the texts in every list in order: the actions of a privilege are a set.
fn sorted(value: &Bson) -> Bson {
    match value {
        Bson::Document(inner) => Bson::Document(
            inner.iter().map(|(name, value)| (name.clone(), sorted(value))).collect(),
        ),
        Bson::Array(items) => {
            let mut items: Vec<Bson> = items.iter().map(sorted).collect();
            items.sort_by_key(ToString::to_string);
            Bson::Array(items)
        }
        other => other.clone(),
    }
}

async fn put_user(
    destination: &Deployment,
    user: &Principal,
    document: &RawDocumentBuf,
) -> Result<(), Fault> {
    let mut filter = RawDocumentBuf::new();
    append(&mut filter, "_id", document.get_str("_id").unwrap_or_default());
    let mut statement = rawdoc! { "q": filter, "upsert": true };
    append(&mut statement, "u", &**document);
    let mut update = command("update", user.kind.collection());
    let mut statements = RawArrayBuf::new();
    statements.push(&*statement);
    append(&mut update, "updates", &*statements);
    append(&mut update, "writeConcern", &*rawdoc! { "w": "majority" });
    let doing = format!("writing the {user}");
    let reply =
        destination.raw_command(ADMIN, update).await.map_err(|e| destination.fault(&doing, &e))?;
    match reply.get("writeErrors").or_else(|| reply.get("writeConcernError")) {
        None => Ok(()),
        Some(why) => {
            let mut fault = Fault::new(
                FaultCode::DestinationWriteFailed,
                format!("{doing} on the destination ({}): {why}", destination.hosts),
            );
            fault.retryable = true;
            Err(fault)
        }
    }
}

async fn put_role(
    destination: &Deployment,
    role: &Principal,
    document: &RawDocumentBuf,
    is_there: bool,
) -> Result<(), Fault> {
    let mut put = command(if is_there { "updateRole" } else { "createRole" }, &role.name);
    for part in OF_ROLE {
        match document.get(part) {
            Ok(Some(value)) => append(&mut put, part, value),
            Ok(None) | Err(_) => append(&mut put, part, &*RawArrayBuf::new()),
        }
    }
    append(&mut put, "writeConcern", &*rawdoc! { "w": "majority" });
    destination
        .raw_command(&role.db, put)
        .await
        .map(drop)
        .map_err(|e| destination.fault(&format!("making the {role}"), &e))
}

#[cfg(test)]
mod tests {
    use super::{Principals, in_order, is_same};
    use mongodb::bson::{RawDocumentBuf, rawdoc};
    use schemas::principal::{Principal, PrincipalKind};

    fn principal(kind: PrincipalKind, name: &str, roles: &[&str]) -> (Principal, RawDocumentBuf) {
        let mut held = mongodb::bson::RawArrayBuf::new();
        roles.iter().for_each(|role| held.push(rawdoc! { "role": *role, "db": "shop" }));
        (
            Principal { kind, db: "shop".to_owned(), name: name.to_owned() },
            rawdoc! { "roles": held },
        )
    }

    #[test]
    fn roles_come_after_those_they_inherit_from_and_users_last() {
        use PrincipalKind::{Role, User};
        let principals: Principals = [
            principal(User, "a", &["top", "readWrite"]),
            principal(Role, "a_top", &["base", "middle"]),
            principal(Role, "base", &["read"]),
            principal(Role, "middle", &["zero"]),
            principal(Role, "zero", &["base"]),
        ]
        .into();
        let order: Vec<&str> =
            in_order(&principals).iter().map(|principal| principal.name.as_str()).collect();
        assert_eq!(order, ["base", "zero", "middle", "a_top", "a"]);
    }

    #[test]
    fn roles_are_the_same_in_any_order_of_their_parts() {
        let one = rawdoc! {
            "privileges": [
                { "resource": { "db": "a", "collection": "b" }, "actions": ["find", "insert"] }
            ],
            "roles": [],
        };
        let other = rawdoc! {
            "roles": [],
            "privileges": [
                { "resource": { "db": "a", "collection": "b" }, "actions": ["insert", "find"] }
            ],
            "authenticationRestrictions": [],
        };
        let fewer = rawdoc! {
            "roles": [],
            "privileges": [{ "resource": { "db": "a", "collection": "b" }, "actions": ["insert"] }],
        };
        assert!(is_same(PrincipalKind::Role, &one, &other));
        assert!(!is_same(PrincipalKind::Role, &one, &fewer));
        assert!(!is_same(PrincipalKind::User, &one, &other));
    }
}
