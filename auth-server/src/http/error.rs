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

/// Why there is no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The body could not be read to its end.
    BodyCut,
    /// The body did not come in time.
    BodyLate,
    /// The body is longer than allowed.
    BodyLong,
    /// Too many password checks are waiting.
    Busy,
    /// Neither credentials nor a scope: a login with blanks.
    Credentials,
    /// An OAuth 2 grant type that does not exist here.
    GrantType,
    /// Too much of other requests is in memory.
    Crowded,
    /// Something broke that should not.
    Internal,
    /// The keys that a token of another issuer needs cannot be had now.
    IssuerDown,
    /// The method is not one of these.
    Method(&'static str),
    /// There is nothing at this path.
    NoSuchPath,
    /// More than bcrypt looks at.
    PasswordLong,
    /// Refresh tokens are not issued, so none is accepted.
    RefreshToken,
    /// The service is not one of those configured.
    Service,
    /// The parameter `subject` is missing or no subject.
    Subject,
    /// The database does not answer.
    Unavailable,
    /// Wrong or unreadable credentials.
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
    fn row(self) -> Row {
        use StatusCode as S;
        match self {
            Self::BodyCut => invalid(S::BAD_REQUEST, "the body was cut off"),
            Self::BodyLate => invalid(S::REQUEST_TIMEOUT, "the body did not come in time"),
            Self::BodyLong => (
                S::PAYLOAD_TOO_LARGE,
                Code::SizeInvalid,
                "invalid_request",
                "a token request may have 64 KiB",
            ),
            Self::Busy => (
                S::TOO_MANY_REQUESTS,
                Code::TooManyRequests,
                "temporarily_unavailable",
                "too many sign-ins at once, try again",
            ),
            Self::Credentials => {
                unauthorized("invalid_request", "a user name and a password are needed")
            }
            Self::GrantType => (
                S::BAD_REQUEST,
                Code::Unsupported,
                "unsupported_grant_type",
                "the grant type is not supported: use password",
            ),
            Self::Crowded => unavailable("too much is under way at once, try again"),
            Self::Internal => {
                (S::INTERNAL_SERVER_ERROR, Code::Unknown, "server_error", "see the server's log")
            }
            Self::IssuerDown => {
                unavailable("the keys of the token's issuer cannot be fetched now, try again")
            }
            Self::Method(_) => invalid(S::METHOD_NOT_ALLOWED, "method not allowed"),
            Self::NoSuchPath => invalid(S::NOT_FOUND, "there is nothing here"),
            Self::PasswordLong => unauthorized(
                "invalid_grant",
                "the password has more than 72 bytes, and bcrypt looks at no more: have a shorter one set",
            ),
            Self::RefreshToken => {
                unauthorized("invalid_grant", "refresh tokens are not issued here: sign in again")
            }
            Self::Service => invalid(
                S::BAD_REQUEST,
                "no tokens are issued for this service: see `services` in auth.toml",
            ),
            Self::Subject => {
                invalid(S::BAD_REQUEST, "the parameter subject is missing or no subject")
            }
            Self::Unavailable => unavailable("the server cannot look up rights now, try again"),
            Self::WrongCredentials => unauthorized("invalid_grant", "wrong user name or password"),
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

/// Status, the specification's code, OAuth's word and what a person reads.
type Row = (StatusCode, Code, &'static str, &'static str);

fn invalid(status: StatusCode, message: &'static str) -> Row {
    (status, Code::Unsupported, "invalid_request", message)
}

fn unauthorized(error: &'static str, message: &'static str) -> Row {
    (StatusCode::UNAUTHORIZED, Code::Unauthorized, error, message)
}

fn unavailable(message: &'static str) -> Row {
    (StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable, "temporarily_unavailable", message)
}

#[derive(Serialize)]
struct Body {
    #[serde(flatten)]
    errors: ErrorBody,
    error: &'static str,
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let (status, code, error, message) = self.refusal.row();
        let errors = ErrorBody::new(code, message, serde_json::Value::Null);
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
        log.error.get_or_insert_with(|| message.to_owned());
        response.extensions_mut().insert(log);
        response
    }
}
