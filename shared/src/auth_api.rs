//! What the two servers say to each other over their private socket.
//!
//! Paths, header names and bodies stand here once, since a disagreement would be an outage.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use crate::subject::{Grantee, Subject};

/// Answers `GET` and `POST`: the token endpoint, also reached through the registry.
pub const TOKEN_PATH: &str = "/token";
/// The longest body of a token request, in bytes.
pub const TOKEN_BODY_BYTES_MAX: usize = 64 * 1024;
/// How long a token request may take to arrive whole.
pub const TOKEN_BODY_TIMEOUT: Duration = Duration::from_secs(15);

/// What that limit is called where refusals are told.
pub const TOKEN_BODY_LIMIT: &str = "TOKEN_BODY_TIMEOUT";
/// Answers `GET`: the verification keys as JWKS.
pub const KEYS_PATH: &str = "/keys";
/// Answers `GET` on the private socket only: [`Revocations`].
pub const REVOCATIONS_PATH: &str = "/revocations";
/// Answers `GET` on the private socket only, with `?subject=`: [`crate::rights::Rights`].
pub const RIGHTS_PATH: &str = "/rights";

/// Carries the client's address from the registry to the token endpoint. Believed on the private
/// socket only.
pub const CLIENT_ADDRESS_HEADER: &str = "x-berth-client-address";

/// The table of raised counters. A token is void when its own counter is smaller than the one that
/// stands here for any grantee that its subject is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocations {
    /// The counter per grantee; absent is who lost none that a token could still
    /// show.
    pub counters: BTreeMap<Grantee, u64>,
}

impl Revocations {
    /// The smallest counter that a token of `subject` must carry to be good.
    pub fn least_for(&self, subject: &Subject) -> u64 {
        subject
            .grantees()
            .filter_map(|grantee| self.counters.get(&grantee).copied())
            .max()
            .unwrap_or(0)
    }
}
