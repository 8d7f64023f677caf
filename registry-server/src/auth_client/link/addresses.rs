//! The addresses that a name has now.

use std::net::SocketAddr;

use axum::http::uri::Authority;
use tokio::net::lookup_host;

use super::super::error::Error;

/// Addresses that are used of one name.
const ADDRESSES_MAX: usize = 64;

/// Looks up those of `authority`, and gives them in order. Takes as long as the system does: whoever gave this
/// up would leave a thread behind that goes on.
pub(super) async fn look_up(authority: &Authority, port: u16) -> Result<Vec<SocketAddr>, Error> {
    let host = authority.host();
    let failed = |reason: String| Error::Addresses { host: host.to_owned(), reason };
    // A literal of IPv6 has brackets here.
    let found = lookup_host((host.trim_matches(['[', ']']), port)).await;
    let found = found.map_err(|error| failed(error.to_string()))?;
    let mut found: Vec<_> = found.collect();
    found.sort_unstable();
    found.dedup();
    found.truncate(ADDRESSES_MAX);
    if found.is_empty() { Err(failed("it has none".to_owned())) } else { Ok(found) }
}
