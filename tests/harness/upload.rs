//! Upload sessions, a step at a time.

use berth_shared::digest::Digest;
use bytes::Bytes;

use crate::client::{Client, Response};

/// The target that ends the session at `location` with a blob of this digest.
#[must_use]
pub fn commit_target(location: &str, digest: &Digest) -> String {
    let separator = if location.contains('?') { '&' } else { '?' };
    format!("{location}{separator}digest={digest}")
}

/// Sends a chunk; `range` is its `Content-Range`.
pub async fn patch(
    client: &Client,
    token: &str,
    location: &str,
    range: Option<&str>,
    bytes: impl Into<Bytes>,
) -> Response {
    let call = client.call("PATCH", location).bearer(token).body(bytes);
    let call = call.header("content-type", "application/octet-stream");
    match range {
        Some(range) => call.header("content-range", range).send().await,
        None => call.send().await,
    }
}

/// Ends a session, with the last chunk or without.
pub async fn commit(
    client: &Client,
    token: &str,
    location: &str,
    digest: &Digest,
    bytes: impl Into<Bytes>,
) -> Response {
    let target = commit_target(location, digest);
    client.call("PUT", target).bearer(token).body(bytes).send().await
}

/// Bytes that no short pattern repeats in, so that a piece in the wrong place shows.
#[must_use]
pub fn content(length: usize, seed: u64) -> Bytes {
    let mut state = seed.wrapping_mul(2) | 1;
    let next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(next).take(length).collect()
}
