//! What a client shows, and who it turns out to be.

use berth_shared::{clock::UnixSeconds, subject::Subject, text::words};
use zeroize::Zeroizing;

use crate::users::verify::Credentials;

/// What a client shows to say who it is. Has no `Debug`, and is wiped when dropped.
pub(crate) enum Presented {
    /// A user's name and password, or a robot's name and secret or token.
    Password(Credentials),
    /// A robot's secret, or a token of its issuer, alone as a bearer token.
    Bearer(Zeroizing<String>),
    /// A refresh token, as the grant of a form.
    RefreshToken(Zeroizing<String>),
}

impl Presented {
    /// The name that was sent along, if one was.
    pub(crate) fn name(&self) -> Option<&str> {
        match self {
            Self::Password(credentials) => Some(&credentials.user),
            Self::Bearer(_) | Self::RefreshToken(_) => None,
        }
    }

    /// What was shown beside or without a name.
    pub(crate) fn secret(&self) -> &Zeroizing<String> {
        match self {
            Self::Password(credentials) => &credentials.password,
            Self::Bearer(secret) | Self::RefreshToken(secret) => secret,
        }
    }
}

words! {
    /// By what a subject has shown who it is.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum Method {
        /// Nothing was shown.
        Anonymous = "anonymous",
        /// A user's password.
        Password = "password",
        /// A refresh token.
        RefreshToken = "refresh_token",
        /// A robot's secret.
        Robot = "robot",
        /// A token of an issuer that is trusted.
        Trust = "trust",
    }
}

/// Somebody who has shown who they are, and when what they showed ends.
#[derive(Debug)]
pub(crate) struct SignedIn {
    pub(crate) subject: Subject,
    pub(crate) method: Method,
    /// No token may outlive what was shown.
    pub(crate) secret_expires: Option<UnixSeconds>,
}

impl SignedIn {
    /// Somebody by what does not end by itself.
    pub(super) fn new(subject: Subject, method: Method) -> Self {
        Self { subject, method, secret_expires: None }
    }
}
