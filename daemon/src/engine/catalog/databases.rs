//! The databases of a deployment that can hold what is in scope.
//!
//! A reply to `listDatabases` is read by the driver, which takes no text that is no UTF-8. Where
//! there is such a name, it is looked for by the server's own comparison of texts, byte by byte, so
//! that it can be told, or left out as the declaration says.

use mongodb::bson::{RawDocument, RawDocumentBuf, rawdoc};
use schemas::fault::{Fault, FaultCode};
use schemas::namespace::Scope;

use super::odd_names;
use crate::engine::element::{self, Writer};
use crate::mongo::{Deployment, append, error};

/// Bytes of a database's name at most (server manual, "Limits and Thresholds").
const LONGEST: usize = 64;

/// The databases that can hold what is in scope, by name.
///
/// # Errors
/// When one whose name is no UTF-8 is in scope; what the server answers else.
pub(super) async fn list(deployment: &Deployment, scope: &Scope) -> Result<Vec<String>, Fault> {
    // The server goes through all of its databases for a list: with hundreds of migrations, each of
    // one database, that is most of what a look around them costs.
    if let Some(named) = scope.named_databases() {
        return Ok(named.into_iter().map(str::to_owned).collect());
    }
    let (names, odd) = names(deployment).await?;
    let is_left_out = |db: &str| {
        !scope.has_database(db) || scope.exclude.iter().any(|pattern| pattern.matches_all_of(db))
    };
    let in_scope: Vec<String> =
        odd.iter().map(|name| element::shown(name)).filter(|name| !is_left_out(name)).collect();
    if !in_scope.is_empty() {
        let of_all: Vec<String> = in_scope.iter().map(|db| format!("{db}.*")).collect();
        return Err(odd_names(deployment, "databases", &of_all));
    }
    Ok(names.into_iter().filter(|name| scope.has_database(name)).collect())
}

/// The names of all databases: those that are UTF-8, and those that are not.
async fn names(deployment: &Deployment) -> Result<(Vec<String>, Vec<Vec<u8>>), Fault> {
    let mut odd: Vec<Vec<u8>> = Vec::new();
    loop {
        match ask(deployment, Writer::default(), &odd).await? {
            Some(names) => return Ok((names, odd)),
            None => odd.push(first_odd(deployment, &odd).await?),
        }
    }
}

/// The first name that is no UTF-8, besides those that are known.
async fn first_odd(deployment: &Deployment, known: &[Vec<u8>]) -> Result<Vec<u8>, Fault> {
    let mut name: Vec<u8> = Vec::new();
    while name.len() < LONGEST {
        let mut exactly = Writer::default();
        exactly.push_text(b"$eq", &name);
        if ask(deployment, exactly, known).await?.is_none() {
            return Ok(name);
        }
        // Some name begins so and goes on: the least byte with which one does.
        let (mut least, mut most) = (1_u16, 256_u16);
        while most - least > 1 {
            let middle = least.midpoint(most);
            let with =
                |byte: u16| [name.as_slice(), &[u8::try_from(byte).unwrap_or(u8::MAX)]].concat();
            let mut between = Writer::default();
            between.push_text(b"$gte", &with(least));
            between.push_text(b"$lt", &with(middle));
            if ask(deployment, between, known).await?.is_none() {
                most = middle;
            } else {
                least = middle;
            }
        }
        name.push(u8::try_from(least).unwrap_or(u8::MAX));
    }
    // It was dropped meanwhile.
    let mut fault = Fault::new(
        FaultCode::SourceReadFailed,
        format!("{} lists other databases each time", deployment.hosts),
    );
    fault.retryable = true;
    Err(fault)
}

/// The databases whose names compare so, besides those that are known; `None`: one of the names is
/// no UTF-8.
async fn ask(
    deployment: &Deployment,
    compares: Writer,
    known: &[Vec<u8>],
) -> Result<Option<Vec<String>>, Fault> {
    let mut list = rawdoc! { "listDatabases": 1, "nameOnly": true, "authorizedDatabases": false };
    let compares = compares.finish();
    if let Some(filter) = filter(&compares, known) {
        append(&mut list, "filter", &*filter);
    }
    let reply = match deployment.raw_command("admin", list).await {
        Ok(reply) => reply,
        Err(e) if error::is_unreadable(&e) => return Ok(None),
        Err(e) => return Err(deployment.fault("listing the databases", &e)),
    };
    let nameless = || {
        Fault::new(
            FaultCode::Internal,
            format!("{} lists a database without a name", deployment.hosts),
        )
    };
    let listed = reply.get_array("databases").map_err(|_| nameless())?;
    let name = |database: &mongodb::bson::Bson| {
        Some(database.as_document()?.get_str("name").ok()?.to_owned())
    };
    listed
        .iter()
        .map(|database| name(database).ok_or_else(nameless))
        .collect::<Result<_, _>>()
        .map(Some)
}

fn filter(compares: &RawDocument, known: &[Vec<u8>]) -> Option<RawDocumentBuf> {
    let is_any = element::elements(compares).next().is_none();
    if is_any && known.is_empty() {
        return None;
    }
    let mut list = Writer::default();
    known
        .iter()
        .enumerate()
        .for_each(|(place, name)| list.push_text(place.to_string().as_bytes(), name));
    let mut conditions = Writer::default();
    element::elements(compares).for_each(|condition| conditions.copy(&condition));
    conditions.push(element::ARRAY, b"$nin", list.finish().as_bytes());
    let mut filter = Writer::default();
    filter.push_document(b"name", &conditions.finish());
    Some(filter.finish())
}
