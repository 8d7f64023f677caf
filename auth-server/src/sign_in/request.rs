//! What a request for a token says, and what came of it.

use std::net::IpAddr;

use berth_shared::{scope::Scope, subject::Subject};
use zeroize::Zeroizing;

use super::credentials::{Presented, SignedIn};
use crate::{database, issue::Issued};

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
    /// What was shown is not good; `known` is the user or robot of the name that was shown, if there
    /// is one.
    Refused { known: Option<Subject>, why: Why },
    /// The database does not answer.
    Database(database::Error),
    /// The signing keys cannot be had, or opened.
    KeysAway(String),
    /// What should not happen.
    Broken(String),
}

/// Why nobody signs in with what was shown.
#[derive(Debug)]
pub(crate) enum Why {
    /// The credentials are wrong. Whether a password was checked to find that out.
    Wrong { is_checked: bool },
    /// The token of another issuer stands for nobody, for this reason, which the log is told.
    Untrusted(String),
    /// The issuer's keys cannot be had now, for this reason, which the log is told.
    IssuerDown(String),
    /// The password is longer than any that is checked.
    PasswordLong,
    /// Too many password checks or guesses are waiting, by the limit of that name.
    Busy(&'static str),
}

impl IssueError {
    /// Wrong credentials, found out without a check of a password.
    pub(super) fn wrong(known: Option<Subject>) -> Self {
        Self::Refused { known, why: Why::Wrong { is_checked: false } }
    }
}

impl From<database::Error> for IssueError {
    fn from(error: database::Error) -> Self {
        Self::Database(error)
    }
}
