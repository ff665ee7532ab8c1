//! Who calls: the kernel tells the user, the caller the rest.

use schemas::fault::{Fault, FaultCode};
use schemas::history::Actor;
use schemas::wire::to_status;
use schemas::wire::v1;
use tonic::transport::server::UdsConnectInfo;
use tonic::{Request, Status};

/// Characters of a name or revision that are kept; what CI systems give is far shorter.
const LONGEST: usize = 200;

/// The caller's user id. Only the daemon's own user and root may call.
pub(super) fn uid<T>(request: &Request<T>) -> Result<u32, Status> {
    let refuse = |message: String| to_status(&Fault::new(FaultCode::NotPermitted, message));
    let uid = request
        .extensions()
        .get::<UdsConnectInfo>()
        .and_then(|info| info.peer_cred)
        .map(|cred| cred.uid())
        .ok_or_else(|| refuse("the caller's user is not known".to_owned()))?;
    let own = rustix::process::geteuid().as_raw();
    if uid == own || uid == 0 { Ok(uid) } else { Err(refuse(format!("user {uid} may not use the daemon of user {own}"))) }
}

/// The caller, as the journal names it.
pub(super) fn actor<T>(request: &Request<T>, claimed: Option<&v1::Actor>) -> Result<Actor, Status> {
    let uid = uid(request)?;
    let text = |text: &str| {
        let text: String = text.chars().filter(|c| !c.is_control()).take(LONGEST).collect();
        (!text.is_empty()).then_some(text)
    };
    Ok(Actor {
        uid: Some(uid),
        name: claimed.and_then(|claimed| text(&claimed.name)),
        revision: claimed.and_then(|claimed| text(&claimed.revision)),
    })
}
