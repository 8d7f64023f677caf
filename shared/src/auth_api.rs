//! What the two servers say to each other over their private socket, or over the link where they are on
//! several machines.
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
/// Carries the link's secret, without which nothing is answered there; the refusal has a header of this
/// name too.
pub const LINK_SECRET_HEADER: &str = "x-berth-link";

/// The table of raised counters, and of which database and moment it is. A token is void when its own counter is smaller than the one that
/// stands here for any grantee that its subject is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocations {
    /// The database that it is of: numbers of another cannot be compared with its own.
    #[serde(default)]
    pub identity: String,
    /// How far the sequence was.
    #[serde(default)]
    pub sequence: u64,
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

    /// This table, which came behind `before`. One of an earlier moment, as an answer that was overtaken
    /// or a database that was set back gives, takes nothing back: of each counter the larger stays, which
    /// can only void more, until the sequence is beyond what it was.
    #[must_use]
    pub fn behind(mut self, before: &Self) -> Self {
        if self.identity != before.identity || self.sequence >= before.sequence {
            return self;
        }
        for (grantee, counter) in &before.counters {
            let own = self.counters.entry(grantee.clone()).or_default();
            *own = (*own).max(*counter);
        }
        self.sequence = before.sequence;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(identity: &str, sequence: u64, counters: &[(&str, u64)]) -> Revocations {
        let counter = |(grantee, counter): &(&str, u64)| (grantee.parse().unwrap(), *counter);
        let counters = counters.iter().map(counter).collect();
        Revocations { identity: identity.to_owned(), sequence, counters }
    }

    #[test]
    fn a_table_of_an_earlier_moment_takes_nothing_back() {
        let before = table("a", 7, &[("andrew", 7), ("bea", 3)]);
        for (next, expected) in [
            // What was cleared away is gone.
            (table("a", 8, &[("carol", 8)]), table("a", 8, &[("carol", 8)])),
            (table("a", 7, &[]), table("a", 7, &[])),
            (table("b", 1, &[("bea", 1)]), table("b", 1, &[("bea", 1)])),
            (
                table("a", 6, &[("bea", 5), ("carol", 6)]),
                table("a", 7, &[("andrew", 7), ("bea", 5), ("carol", 6)]),
            ),
            // An older auth-server says neither.
            (table("", 0, &[("bea", 1)]), table("", 0, &[("bea", 1)])),
        ] {
            assert_eq!(next.behind(&before), expected);
        }
    }

    #[test]
    fn a_table_that_was_kept_by_an_older_program_is_read() {
        let kept = r#"{"counters":{"andrew":1}}"#;
        let read: Revocations = serde_json::from_str(kept).unwrap();
        assert_eq!(read, table("", 0, &[("andrew", 1)]));
    }
}
