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

use berth_shared::{clock::Clock, subject::Subject, telemetry::chain};
use zeroize::Zeroizing;

use super::{
    credentials::{Method, SignedIn},
    current::Current,
    last_used::{LastUsed, Used},
    request::IssueError,
};
use crate::{
    audit::entry::shown_client_id,
    database::{Database, refresh_tokens::NewRefreshToken},
    secrets::refresh::RefreshToken,
};

/// Issues refresh tokens, and knows them again.
pub(crate) struct RefreshTokens {
    pub(crate) database: Arc<Database>,
    pub(crate) last_used: Arc<LastUsed>,
    /// How long one holds that nobody uses.
    pub(crate) idle_secs: i64,
    pub(crate) clock: Clock,
}

/// A refresh token that was issued. Has no `Debug`: it is a credential.
pub(crate) struct Kept {
    /// Its name for `authctl`.
    pub(crate) id: i64,
    pub(crate) token: Zeroizing<String>,
}

impl RefreshTokens {
    /// Who showed this refresh token. Malformed, unknown, idle and void ones are all the same to the
    /// client.
    pub(crate) async fn sign_in(
        &self,
        current: &Current,
        shown: &str,
    ) -> Result<SignedIn, IssueError> {
        let token: RefreshToken = shown.parse().map_err(|_| IssueError::wrong(None))?;
        // Looked up after the policy was read: what ends it meanwhile voids the token issued here.
        let row = self.database.find_refresh_token(&token.hash()).await?;
        let row = row.ok_or_else(|| IssueError::wrong(None))?;
        let now = self.clock.now();
        // Neither side is a secret that the client sent, so that the time of this tells nothing.
        let is_bound = current.credential(&row.subject, now).as_ref() == Some(&row.credential);
        if !is_bound || row.last_used <= now - self.idle_secs {
            return Err(IssueError::wrong(Some(row.subject)));
        }
        self.last_used.note(Used::RefreshToken(row.id), Some(row.last_used));
        let secret_expires = match &row.subject {
            Subject::Robot(name) => current.policy.robots.get(name).and_then(|robot| robot.expires),
            _ => None,
        };
        Ok(SignedIn { subject: row.subject, method: Method::RefreshToken, secret_expires })
    }

    /// A refresh token for somebody who has just signed in with a password or a secret, durably
    /// kept when this returns. `None` where there is none to be had: a token without one is better
    /// than none at all, and the client goes on with the password that it has.
    pub(crate) async fn issue(
        &self,
        current: &Current,
        subject: &Subject,
        client_id: Option<&str>,
    ) -> Option<Kept> {
        let now = self.clock.now();
        let credential = current.credential(subject, now)?;
        let token = RefreshToken::generate().ok()?;
        let new = NewRefreshToken {
            hash: token.hash(),
            subject: subject.clone(),
            credential,
            client: shown_client_id(client_id.unwrap_or_default()),
            sequence: current.policy.sequence,
        };
        let (database, idle_since) = (Arc::clone(&self.database), now - self.idle_secs);
        let keeping =
            tokio::spawn(async move { database.keep_refresh_token(&new, now, idle_since).await });
        match keeping.await {
            Ok(Ok(id)) => {
                id.map(|id| Kept { id, token: Zeroizing::new(token.expose().to_owned()) })
            }
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
}
