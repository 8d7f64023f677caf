//! Refresh tokens: what a client may keep in place of a password, where `refresh_tokens` is on.
//!
//! One is issued to who asks for it with a password or a robot's secret, and says nothing but whose
//! it is: rights are evaluated anew each time that it is shown. It is bound to the credential that
//! it was issued for, by a fingerprint of that, and is void as soon as that is another: a changed
//! password, a removed user, an expired or revoked robot. One that nobody uses ends by itself.
//!
//! A refresh token is not a password of its user: it counts as the refresh grant of a form, and as
//! the password of the user name [`USER_NAME`](crate::secrets::refresh::USER_NAME), nowhere else.

use std::sync::Arc;

use berth_shared::{clock::UnixSeconds, subject::Subject, telemetry::chain};
use zeroize::Zeroizing;

use super::{
    credentials::{Method, SignedIn},
    current::Current,
    last_used::Used,
    request::{IssueError, TokenRequest},
};
use crate::{
    acl::refresh_tokens::NewRefreshToken, audit::entry::shown_client_id,
    secrets::refresh::RefreshToken, server::AuthServer,
};

const DAY_SECS: i64 = 24 * 60 * 60;

impl AuthServer {
    /// Who showed this refresh token. Malformed, unknown, idle and void ones are all the same to the
    /// client.
    pub(crate) async fn sign_in_by_refresh_token(
        self: &Arc<Self>,
        current: &Current,
        shown: &str,
    ) -> Result<SignedIn, IssueError> {
        let wrong = |known| IssueError::Wrong { known, is_checked: false };
        if !self.config().refresh_tokens {
            return Err(wrong(None));
        }
        let token: RefreshToken = shown.parse().map_err(|_| wrong(None))?;
        // Looked up after the policy was read: what ends it meanwhile voids the token issued here.
        let row = self.database.find_refresh_token(&token.hash()).await?;
        let row = row.ok_or_else(|| wrong(None))?;
        let now = self.clock.now();
        // Neither side is a secret that the client sent, so that the time of this tells nothing.
        let is_bound = self.credential(current, &row.subject).as_ref() == Some(&row.credential);
        if !is_bound || row.last_used <= self.idle_since(now) {
            return Err(wrong(Some(row.subject)));
        }
        self.note_use(Used::RefreshToken(row.id), Some(row.last_used));
        let secret_expires = match &row.subject {
            Subject::Robot(name) => current.policy.robots.get(name).and_then(|robot| robot.expires),
            _ => None,
        };
        Ok(SignedIn { subject: row.subject, method: Method::RefreshToken, secret_expires })
    }

    /// A refresh token for somebody who has just signed in with a password or a secret, durably
    /// kept when this returns. `None` where there is none to be had: a token without one is better
    /// than none at all, and the client goes on with the password that it has.
    pub(crate) async fn issue_refresh_token(
        &self,
        current: &Current,
        signed_in: &SignedIn,
        request: &TokenRequest<'_>,
    ) -> Option<Zeroizing<String>> {
        if !self.config().refresh_tokens {
            return None;
        }
        let credential = self.credential(current, &signed_in.subject)?;
        let token = RefreshToken::generate().ok()?;
        let new = NewRefreshToken {
            hash: token.hash(),
            subject: signed_in.subject.clone(),
            credential,
            client: shown_client_id(request.agent.id.unwrap_or_default()),
            sequence: current.policy.sequence,
        };
        let (now, database) = (self.clock.now(), Arc::clone(&self.database));
        let idle_since = self.idle_since(now);
        let keeping =
            tokio::spawn(async move { database.keep_refresh_token(&new, now, idle_since).await });
        match keeping.await {
            Ok(Ok(id)) => id.map(|id| {
                self.note_refresh_issue(id, &signed_in.subject, request);
                Zeroizing::new(token.expose().to_owned())
            }),
            Ok(Err(error)) => {
                tracing::warn!(error = chain(&error), "no refresh token was issued");
                None
            }
            Err(error) => {
                tracing::error!(error = chain(&error), "no refresh token was issued");
                None
            }
        }
    }

    /// What tells the credential that `subject` has now from any other, if it is good for signing
    /// in.
    fn credential(&self, current: &Current, subject: &Subject) -> Option<String> {
        match subject {
            Subject::User(name) => current.users.get(name).map(|stored| stored.fingerprint(name)),
            Subject::Robot(name) if self.can_sign_in(current, name) => {
                current.policy.robots.secret_hash(name).map(ToOwned::to_owned)
            }
            _ => None,
        }
    }

    /// What was last used then or before has ended.
    fn idle_since(&self, now: UnixSeconds) -> UnixSeconds {
        now - i64::from(self.config().refresh_token_idle_days) * DAY_SECS
    }
}
