//! From what came of a request for a token to its entry in the audit.

use std::{net::IpAddr, sync::Arc};

use berth_shared::{clock::Clock, subject::Subject};

use crate::{
    audit::entry::{Entry, Source, list},
    audit_log::Queue,
    sign_in::request::{Agent, Granted, IssueError, TokenRequest, Why},
};

/// Notes what clients cause.
pub(crate) struct Recorder {
    pub(super) queue: Arc<Queue>,
    /// Whether what was given as it was asked for is noted too.
    pub(super) records_issues: bool,
    pub(super) clock: Clock,
}

impl Recorder {
    /// Notes what came of a request for a token. Whatever failed for the server's own sake is in
    /// the log alone.
    pub(super) fn request(&self, request: &TokenRequest<'_>, result: &Result<Granted, IssueError>) {
        let at = self.clock.now();
        let source = || source(request.client, request.agent);
        let tag = |known: &Option<_>| {
            let name = request.presented.and_then(|presented| presented.name());
            name.filter(|_| known.is_none()).map(|name| self.queue.tag(name))
        };
        let entry = match result {
            Ok(granted) => {
                let (signed_in, issued) = (&granted.signed_in, &granted.issued);
                let detail = source()
                    .with("method", signed_in.method.word())
                    .with("service", request.service)
                    .with("requested", list(request.scopes))
                    .with("granted", list(&issued.scopes))
                    .with("jti", issued.claims.jti.as_str());
                Entry::token(at, &signed_in.subject, issued.withheld, detail)
            }
            Err(IssueError::Refused { known, why: Why::Busy(_) }) => {
                Entry::login_busy(at, known.as_ref(), tag(known), source())
            }
            Err(IssueError::Refused { known, why }) => {
                let reason = match why {
                    Why::PasswordLong => {
                        "a password of more than 72 bytes, which bcrypt cannot check"
                    }
                    Why::Untrusted(_) => "a token of another issuer that stands for nobody",
                    Why::IssuerDown(_) => "the keys of the token's issuer cannot be had",
                    Why::Wrong { .. } | Why::Busy(_) => "wrong name, password or secret",
                };
                Entry::login_fail(at, reason, known.as_ref(), tag(known), source())
                    .checked(matches!(why, Why::Wrong { is_checked: true }))
            }
            Err(IssueError::Database(_) | IssueError::KeysAway(_) | IssueError::Broken(_)) => {
                return;
            }
        };
        if self.records_issues || !entry.is_issue() {
            self.queue.push(entry);
        }
    }

    /// Notes that a refresh token was given out.
    pub(super) fn refresh_token(&self, id: i64, whose: &Subject, request: &TokenRequest<'_>) {
        let (at, source) = (self.clock.now(), source(request.client, request.agent));
        self.queue.push(Entry::refresh_issue(at, whose, id, source));
    }

    /// Notes credentials that could not be read: whose they are is not known.
    pub(crate) fn unreadable(&self, client: Option<IpAddr>, agent: Agent<'_>) {
        let (at, source) = (self.clock.now(), source(client, agent));
        self.queue.push(Entry::login_fail(at, "unreadable credentials", None, None, source));
    }
}

fn source(client: Option<IpAddr>, agent: Agent<'_>) -> Source {
    Source::new(client, agent.id, agent.header)
}
