//! Tokens: what each says, and the signature under it.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use berth_shared::{clock::Clock, telemetry::chain};
use metrics::histogram;
use tokio::time::Instant;

use crate::{
    database::policy::Policy,
    issue::{Issued, Request, issue},
    keys::CurrentKeys,
    random,
    sign_in::{
        credentials::SignedIn,
        request::{IssueError, TokenRequest},
    },
};

/// Makes tokens, and signs them.
pub(super) struct Issuer {
    /// The `iss` of every token.
    pub(super) name: String,
    /// How long a token holds.
    pub(super) life: Duration,
    pub(super) keys: CurrentKeys,
    pub(super) clock: Clock,
    /// The latest time that a token was issued at since the start, by a clock that may have been
    /// ahead.
    pub(super) latest: AtomicI64,
}

impl Issuer {
    /// A token for somebody who has signed in, by rules and counter of `policy`.
    pub(super) fn issue(
        &self,
        policy: &Policy,
        signed_in: &SignedIn,
        request: &TokenRequest<'_>,
    ) -> Result<(Issued, String), IssueError> {
        let rights = policy.rights(&signed_in.subject);
        let now = self.clock.now();
        self.latest.fetch_max(now.get(), Ordering::Relaxed);
        // The token's name in an audit, and nothing that can be guessed.
        let id = random::bytes::<16>();
        let id = id.map_err(|_| IssueError::Broken("no randomness".to_owned()))?;
        let issued = issue(Request {
            subject: &signed_in.subject,
            issuer: &self.name,
            service: request.service,
            scopes: request.scopes,
            rights: &rights,
            counter: policy.sequence,
            secret_expires: signed_in.secret_expires,
            now,
            life: self.life,
            id: URL_SAFE_NO_PAD.encode(id),
        });
        let begun = Instant::now();
        // Those of the look that the request took: who drops keys voids tokens in the same act.
        let keys = self.keys.of(&policy.signing_keys);
        let token = keys.map_err(|error| IssueError::KeysAway(chain(&error)))?.sign(&issued.claims);
        histogram!("berth_token_signing_duration_seconds").record(begun.elapsed());
        let token = token.map_err(|error| IssueError::Broken(chain(&error)))?;
        Ok((issued, token))
    }
}
