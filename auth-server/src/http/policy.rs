//! What the registry asks on the private socket: the raised counters, and a subject's rules.

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode, Uri},
    response::Response,
};
use berth_shared::{subject::Subject, telemetry::chain};

use super::{Door, error::Error, error::Refusal, json, tagged};

/// The table of raised counters; 304 while it is what the registry has.
pub(super) async fn revocations(
    State(door): State<Door>,
    headers: HeaderMap,
) -> Result<Response, Error> {
    // An edit of the htpasswd file raises counters when it is seen: look before answering.
    let policy = door.server.current().await.map_err(|error| unavailable(&error))?.policy;
    let body = serde_json::to_string(&policy.revocations)
        .map_err(|error| Error::because(Refusal::Internal, chain(&error)))?;
    Ok(tagged(&headers, "application/json", "no-cache", &body))
}

/// The rules of `?subject=`; a user who is gone has none.
pub(super) async fn rights(State(door): State<Door>, uri: Uri) -> Result<Response, Error> {
    let query = uri.query().unwrap_or_default();
    let subject = form_urlencoded::parse(query.as_bytes())
        .find(|(name, _)| name == "subject")
        .and_then(|(_, value)| Subject::from_claim(&value).ok())
        .ok_or_else(|| Error::refused(Refusal::Subject))?;
    let current = door.server.current().await.map_err(|error| unavailable(&error))?;
    Ok(json(StatusCode::OK, &current.rights(&subject, door.server.clock.now())))
}

fn unavailable(error: &crate::database::Error) -> Error {
    Error::because(Refusal::Unavailable, chain(error))
}
