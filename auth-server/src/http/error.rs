//! The one table of what the endpoints answer when they do not give what was asked for.
//!
//! The body has both shapes that clients read: the `errors` list of the distribution specification
//! and the `error` word of OAuth 2 (RFC 6749 §5.2). Nothing in it depends on which users exist.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use berth_shared::{
    error::{Code, ErrorBody},
    serve::log::LogFields,
};
use serde::Serialize;

/// Why there is no token, in the words that a person reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    /// The body could not be read to its end.
    #[error("the body was cut off")]
    BodyCut,
    /// The body did not come in time.
    #[error("the body did not come in time")]
    BodyLate,
    /// The body is longer than allowed.
    #[error("a token request may have 64 KiB")]
    BodyLong,
    /// Too many password checks are waiting.
    #[error("too many sign-ins at once, try again")]
    Busy,
    /// Neither credentials nor a scope: a login with blanks.
    #[error("a user name and a password are needed")]
    Credentials,
    /// An OAuth 2 grant type that does not exist here.
    #[error("the grant type is not supported: use password")]
    GrantType,
    /// Too much of other requests is in memory.
    #[error("too much is under way at once, try again")]
    Crowded,
    /// Something broke that should not.
    #[error("see the server's log")]
    Internal,
    /// The keys that a token of another issuer needs cannot be had now.
    #[error("the keys of the token's issuer cannot be fetched now, try again")]
    IssuerDown,
    /// The method is not one of these.
    #[error("method not allowed")]
    Method(&'static str),
    /// There is nothing at this path.
    #[error("there is nothing here")]
    NoSuchPath,
    /// More than bcrypt looks at.
    #[error(
        "the password has more than 72 bytes, and bcrypt looks at no more: have a shorter one set"
    )]
    PasswordLong,
    /// Refresh tokens are not issued, so none is accepted.
    #[error("refresh tokens are not issued here: sign in again")]
    RefreshToken,
    /// The service is not one of those configured.
    #[error("no tokens are issued for this service: see `services` in auth.toml")]
    Service,
    /// The parameter `subject` is missing or no subject.
    #[error("the parameter subject is missing or no subject")]
    Subject,
    /// The database does not answer.
    #[error("the server cannot look up rights now, try again")]
    Unavailable,
    /// Wrong or unreadable credentials.
    #[error("wrong user name or password")]
    WrongCredentials,
}

/// A refusal, with what the log is to know about it.
#[derive(Debug)]
pub(super) struct Error {
    refusal: Refusal,
    log: Box<LogFields>,
}

impl Error {
    /// A refusal that explains itself.
    pub(super) fn refused(refusal: Refusal) -> Self {
        Self { refusal, log: Box::default() }
    }

    /// A refusal with its cause, which only the log learns.
    pub(super) fn because(refusal: Refusal, cause: impl Into<String>) -> Self {
        let log = LogFields { error: Some(cause.into()), ..LogFields::default() };
        Self { refusal, log: Box::new(log) }
    }

    /// A refusal because of the limit of this name.
    pub(super) fn limited(refusal: Refusal, limit: &'static str) -> Self {
        let log = LogFields { limit: Some(limit), ..LogFields::default() };
        Self { refusal, log: Box::new(log) }
    }

    /// Why, in the few words that metrics tell apart.
    pub(super) fn reason(&self) -> &'static str {
        match self.refusal {
            Refusal::Busy | Refusal::Crowded => "busy",
            Refusal::Credentials => "no_credentials",
            Refusal::Internal | Refusal::IssuerDown | Refusal::Unavailable => "unavailable",
            Refusal::PasswordLong | Refusal::WrongCredentials => "wrong_credentials",
            _ => "invalid_request",
        }
    }

    /// What the log is to know.
    pub(super) fn log(&mut self) -> &mut LogFields {
        &mut self.log
    }
}

impl Refusal {
    /// Status, the specification's code and OAuth's word.
    fn row(self) -> (StatusCode, Code, &'static str) {
        use StatusCode as S;
        match self {
            Self::BodyCut | Self::Service | Self::Subject => {
                (S::BAD_REQUEST, Code::Unsupported, "invalid_request")
            }
            Self::BodyLate => (S::REQUEST_TIMEOUT, Code::Unsupported, "invalid_request"),
            Self::BodyLong => (S::PAYLOAD_TOO_LARGE, Code::SizeInvalid, "invalid_request"),
            Self::Method(_) => (S::METHOD_NOT_ALLOWED, Code::Unsupported, "invalid_request"),
            Self::NoSuchPath => (S::NOT_FOUND, Code::Unsupported, "invalid_request"),
            Self::GrantType => (S::BAD_REQUEST, Code::Unsupported, "unsupported_grant_type"),
            Self::Credentials => (S::UNAUTHORIZED, Code::Unauthorized, "invalid_request"),
            Self::PasswordLong | Self::RefreshToken | Self::WrongCredentials => {
                (S::UNAUTHORIZED, Code::Unauthorized, "invalid_grant")
            }
            Self::Busy => (S::TOO_MANY_REQUESTS, Code::TooManyRequests, "temporarily_unavailable"),
            Self::Crowded | Self::IssuerDown | Self::Unavailable => {
                (S::SERVICE_UNAVAILABLE, Code::Unavailable, "temporarily_unavailable")
            }
            Self::Internal => (S::INTERNAL_SERVER_ERROR, Code::Unknown, "server_error"),
        }
    }

    /// How long to wait before trying again, in seconds.
    fn retry_after(self) -> Option<&'static str> {
        match self {
            Self::Busy | Self::IssuerDown => Some("10"),
            Self::Unavailable | Self::Crowded => Some("5"),
            _ => None,
        }
    }
}

#[derive(Serialize)]
struct Body {
    #[serde(flatten)]
    errors: ErrorBody,
    error: &'static str,
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let (status, code, error) = self.refusal.row();
        let message = self.refusal.to_string();
        let errors = ErrorBody::new(code, &message, serde_json::Value::Null);
        let mut response = super::json(status, &Body { errors, error });
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
        if status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Basic realm=\"berth\"");
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        if let Self { refusal: Refusal::Method(allowed), .. } = self {
            headers.insert(header::ALLOW, HeaderValue::from_static(allowed));
        }
        if let Some(seconds) = self.refusal.retry_after() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static(seconds));
        }
        let mut log = *self.log;
        log.error.get_or_insert(message);
        response.extensions_mut().insert(log);
        response
    }
}
