//! What the domain is shown: the proof that a subject may do something to a repository, and what a
//! token that expired in the middle of an upload is judged by.

use berth_shared::{
    action::Action,
    claims::{LEEWAY_SECS, SESSION_GRANT_SECS_MAX},
    clock::UnixSeconds,
    name::RepositoryName,
    subject::Subject,
    token::VerifiedToken,
};

/// Proof that a subject may do what an endpoint does to a repository. Made here and nowhere else.
#[derive(Debug, Clone)]
pub(crate) struct Permit {
    subject: Subject,
    repository: RepositoryName,
}

impl Permit {
    pub(super) fn new(subject: Subject, repository: RepositoryName) -> Self {
        Self { subject, repository }
    }

    /// Who.
    #[must_use]
    pub(crate) fn subject(&self) -> &Subject {
        &self.subject
    }

    /// To which repository.
    #[must_use]
    pub(crate) fn repository(&self) -> &RepositoryName {
        &self.repository
    }
}

#[cfg(test)]
impl Permit {
    /// What tests of the domain hold.
    pub(crate) fn of(subject: Subject, repository: RepositoryName) -> Self {
        Self { subject, repository }
    }
}

/// Whose upload session it is, and since when.
#[derive(Debug, Clone)]
pub(crate) struct SessionGrant {
    pub(crate) repository: RepositoryName,
    /// The `sub` claim of whoever began it.
    pub(crate) subject: String,
    pub(crate) started: UnixSeconds,
}

impl SessionGrant {
    /// Whether a token that has expired still goes for this session, asked for in its repository: it
    /// was in force when the session began, which is not too long ago (auth R14).
    pub(super) fn extends(
        &self,
        asked_in: Option<&RepositoryName>,
        token: &VerifiedToken,
        now: UnixSeconds,
    ) -> bool {
        let claims = &token.claims;
        asked_in == Some(&self.repository)
            && claims.sub == self.subject
            && claims.allows(&self.repository, Action::Push)
            && claims.nbf - LEEWAY_SECS <= self.started
            && self.started < claims.exp + LEEWAY_SECS
            && now - self.started <= SESSION_GRANT_SECS_MAX
    }
}
