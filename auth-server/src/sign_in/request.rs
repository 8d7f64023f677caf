//! What a request for a token says, and what came of it.

use std::net::IpAddr;

use berth_shared::{scope::Scope, subject::Subject};
use zeroize::Zeroizing;

use super::credentials::{Presented, SignedIn};
use crate::{acl, issue::Issued};

/// A request for a token.
pub(crate) struct TokenRequest<'a> {
    pub(crate) service: &'a str,
    pub(crate) scopes: &'a [Scope],
    pub(crate) presented: Option<&'a Presented>,
    /// Where the client is, where that is known.
    pub(crate) client: Option<IpAddr>,
    /// Whether a refresh token is wanted.
    pub(crate) is_offline: bool,
    pub(crate) agent: Agent<'a>,
}

/// What a client says of itself.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Agent<'a> {
    /// The parameter `client_id`.
    pub(crate) id: Option<&'a str>,
    /// The header `User-Agent`.
    pub(crate) header: Option<&'a str>,
}

/// A token, and what it rests on. Has no `Debug`: the token is a credential.
pub(crate) struct Granted {
    pub(crate) signed_in: SignedIn,
    pub(crate) issued: Issued,
    pub(crate) token: String,
    pub(crate) refresh_token: Option<Zeroizing<String>>,
}

/// Why there is no token.
#[derive(Debug)]
pub(crate) enum IssueError {
    /// The credentials are wrong; `known` is the user or robot, if there is one of that name.
    /// `is_checked` says whether a password was checked to find that out.
    Wrong { known: Option<Subject>, is_checked: bool },
    /// The token of another issuer stands for nobody; `reason` is for the log.
    Untrusted { known: Option<Subject>, reason: String },
    /// The issuer's keys cannot be had now; `reason` is for the log.
    IssuerDown { known: Option<Subject>, reason: String },
    /// The password is longer than any that is checked; `known` as above.
    PasswordLong { known: Option<Subject> },
    /// Too many password checks or guesses are waiting, by the limit of that name; `known` as above.
    Busy { known: Option<Subject>, limit: &'static str },
    /// The database does not answer.
    Database(acl::Error),
    /// What should not happen.
    Broken(String),
}

impl From<acl::Error> for IssueError {
    fn from(error: acl::Error) -> Self {
        Self::Database(error)
    }
}
