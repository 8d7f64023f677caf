//! The one table from failures to the specification's words: status, code, message, headers.

use axum::{
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::Response,
};
use berth_shared::{
    digest::InvalidDigest,
    error::{Code, ErrorBody},
    name::InvalidName,
    scope::Scope,
    subject::Subject,
    tag::InvalidTag,
    telemetry::chain,
};
use serde_json::{Value, json};

use super::{basic::NoToken, endpoint::NotAnEndpoint, json as json_response, value};
use crate::{
    authz::{Denied, Reason},
    registry,
};

/// How many of the things that a manifest lacks are told: it may name thousands.
const MISSING_TOLD_MAX: usize = 20;

/// When to try again, once own uploads had time to end.
const UPLOADS_RETRY_SECS: &str = "60";

/// Why a request gets no good answer.
#[derive(Debug)]
pub(crate) enum Error {
    NotAnEndpoint(NotAnEndpoint),
    Denied(Denied),
    Registry(registry::Error),
    /// Credentials on the API itself could not be checked now.
    SignIn(NoToken),
    /// The path has no such method; these it has.
    MethodNotAllowed(&'static str),
    /// A header or query parameter cannot be read.
    BadRequest(Code, &'static str),
    /// No byte of the blob is within the range asked for.
    RangeNotSatisfiable {
        size: u64,
    },
    /// A chunk does not begin where the upload stands, or does not say where.
    OutOfOrder {
        message: &'static str,
        location: String,
        range: String,
    },
}

/// An answer, or why there is no good one.
pub(super) type Answer = Result<Response, Error>;

impl From<Denied> for Error {
    fn from(denied: Denied) -> Self {
        Self::Denied(denied)
    }
}

impl From<registry::Error> for Error {
    fn from(error: registry::Error) -> Self {
        Self::Registry(error)
    }
}

/// A row of the table.
struct Row {
    status: StatusCode,
    code: Code,
    message: String,
    /// The error is told once for each.
    details: Vec<Value>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Row {
    fn new(status: StatusCode, code: Code, message: impl Into<String>) -> Self {
        let (details, headers) = (vec![Value::Null], Vec::new());
        Self { status, code, message: message.into(), details, headers }
    }

    fn with_header(mut self, name: HeaderName, text: impl Into<String>) -> Self {
        self.headers.push((name, value(text)));
        self
    }
}

impl Error {
    /// What it means that there is no token for the credentials of a request that needs `scopes`.
    /// Wrong ones get the challenge that none get: it says how one signs in.
    pub(super) fn no_token(reason: NoToken, scopes: Vec<Scope>) -> Self {
        match reason {
            NoToken::Wrong(why) => {
                Self::Denied(Denied { scopes, reason: Reason::BadPassword(why) })
            }
            reason => Self::SignIn(reason),
        }
    }

    /// What the log says beyond the status: the causes of a failure that is ours, and why a token
    /// was refused.
    pub(super) fn for_the_log(&self) -> Option<String> {
        match self {
            Self::Registry(error) => Some(chain(error)),
            Self::Denied(Denied { reason, .. }) => match reason {
                Reason::NoToken => None,
                Reason::BadToken(refusal) => Some(refusal.to_string()),
                Reason::InsufficientScope(_) => Some("the token does not cover this".to_owned()),
                Reason::BadPassword(why) => Some(why.clone()),
                Reason::Unavailable => {
                    Some("no keys and revocations from auth-server yet".to_owned())
                }
            },
            Self::BadRequest(_, message) => Some((*message).to_owned()),
            Self::SignIn(NoToken::Unavailable(why)) => {
                Some(format!("the credentials could not be checked: {why}"))
            }
            Self::SignIn(_) => Some("the credentials could not be checked".to_owned()),
            _ => None,
        }
    }

    /// The limit, by its name, that turned the request away.
    pub(super) fn limit(&self) -> Option<&'static str> {
        match self {
            Self::Registry(registry::Error::BodyLate) => Some("transfer_bytes_per_sec_min"),
            Self::Registry(registry::Error::WriterBusy) => Some("write_secs_max"),
            Self::Registry(registry::Error::Busy(busy)) => Some(busy.limit),
            Self::Registry(registry::Error::TooManySessions { .. }) => {
                Some("sessions_per_subject_max")
            }
            Self::Registry(registry::Error::TooManyUnfinishedBytes { .. }) => {
                Some("unfinished_bytes_per_subject_max")
            }
            _ => None,
        }
    }

    /// Who was refused, where the token is good and says too little.
    pub(super) fn subject(&self) -> Option<String> {
        match self {
            Self::Denied(Denied { reason: Reason::InsufficientScope(subject), .. }) => {
                Some(subject.to_string())
            }
            _ => None,
        }
    }

    /// The answer. The challenge names `realm` and `service`.
    pub(super) fn into_response(self, realm: &str, service: &str) -> Response {
        let row = self.row(realm, service);
        let body = ErrorBody::for_each(row.code, &row.message, row.details);
        let mut response = json_response(row.status, body.to_json());
        response.headers_mut().extend(row.headers);
        response
    }

    fn row(self, realm: &str, service: &str) -> Row {
        match self {
            Self::NotAnEndpoint(reason) => not_an_endpoint(reason),
            Self::Denied(denied) => refused(denied, realm, service),
            Self::Registry(error) => domain(error),
            Self::SignIn(reason) => sign_in(reason),
            Self::BadRequest(code, message) => Row::new(StatusCode::BAD_REQUEST, code, message),
            Self::RangeNotSatisfiable { size } => Row::new(
                StatusCode::RANGE_NOT_SATISFIABLE,
                Code::SizeInvalid,
                "the range lies outside the blob",
            )
            .with_header(header::CONTENT_RANGE, format!("bytes */{size}")),
            Self::MethodNotAllowed(allowed) => Row::new(
                StatusCode::METHOD_NOT_ALLOWED,
                Code::Unsupported,
                format!("the method is not supported here; these are: {allowed}"),
            )
            .with_header(header::ALLOW, allowed),
            Self::OutOfOrder { message, location, range } => {
                Row::new(StatusCode::RANGE_NOT_SATISFIABLE, Code::BlobUploadInvalid, message)
                    .with_header(header::LOCATION, location)
                    .with_header(header::RANGE, range)
            }
        }
    }
}

fn not_an_endpoint(reason: NotAnEndpoint) -> Row {
    let bad = |code, message| Row::new(StatusCode::BAD_REQUEST, code, message);
    match reason {
        NotAnEndpoint::Path => {
            let message = "nothing of the registry lies here";
            Row::new(StatusCode::NOT_FOUND, Code::NameUnknown, message)
        }
        NotAnEndpoint::Name => bad(Code::NameInvalid, InvalidName.to_string()),
        NotAnEndpoint::Digest => bad(Code::DigestInvalid, InvalidDigest.to_string()),
        NotAnEndpoint::Tag => bad(Code::ManifestInvalid, InvalidTag.to_string()),
        NotAnEndpoint::UploadId => domain(registry::Error::UploadUnknown),
    }
}

/// What cannot be checked now is asked for again.
fn unavailable(message: &str) -> Row {
    Row::new(StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable, message)
        .with_header(header::RETRY_AFTER, "2")
}

fn refused(denied: Denied, realm: &str, service: &str) -> Row {
    let Denied { scopes, reason } = denied;
    let (error, message) = match reason {
        Reason::Unavailable => {
            return unavailable("sign-in is not available yet: try again in a few seconds");
        }
        Reason::NoToken => (None, "authentication required: sign in with docker login".to_owned()),
        Reason::BadPassword(why) => (None, why),
        Reason::BadToken(_) => {
            (Some("invalid_token"), "the token is not accepted: sign in again".to_owned())
        }
        Reason::InsufficientScope(subject) => {
            (Some("insufficient_scope"), insufficient(&subject, &scopes))
        }
    };
    let challenge = challenge(realm, service, &scopes, error);
    let mut row = Row::new(StatusCode::UNAUTHORIZED, Code::Unauthorized, message)
        .with_header(header::WWW_AUTHENTICATE, challenge);
    row.details = vec![scopes.iter().map(needed).collect()];
    row
}

/// Credentials on the API itself that cannot be checked now.
fn sign_in(reason: NoToken) -> Row {
    let NoToken::Busy(retry_after) = reason else {
        return unavailable("sign-in is not available at the moment: try again in a few seconds");
    };
    let (status, code) = (StatusCode::TOO_MANY_REQUESTS, Code::TooManyRequests);
    let mut row = Row::new(status, code, "too many sign-ins at once, try again");
    let retry_after = retry_after.unwrap_or(HeaderValue::from_static("2"));
    row.headers.push((header::RETRY_AFTER, retry_after));
    row
}

/// Says who lacks what, and what would give it. Depends on nothing that the registry holds.
fn insufficient(subject: &Subject, scopes: &[Scope]) -> String {
    let Some(Scope::Repository { name, actions }) = scopes.first() else {
        return format!("{subject} may not do this");
    };
    let last = actions.iter().last().map_or("", berth_shared::action::Action::word);
    match subject {
        Subject::Anonymous => {
            format!("who is not signed in may not {last} {name}: sign in with docker login")
        }
        Subject::Foreign(_) => format!("{subject} may not {last} {name}"),
        Subject::User(_) | Subject::Robot(_) => format!(
            "{subject} may not {last} {name}: an administrator can allow it with \
             authctl grant {subject} {name}:{last}"
        ),
    }
}

/// The challenge, in the order and form that every client reads (auth R3).
pub(super) fn challenge(
    realm: &str,
    service: &str,
    scopes: &[Scope],
    error: Option<&str>,
) -> String {
    let mut text = format!("Bearer realm=\"{realm}\",service=\"{service}\"");
    if !scopes.is_empty() {
        let scopes: Vec<String> = scopes.iter().map(ToString::to_string).collect();
        text.push_str(&format!(",scope=\"{}\"", scopes.join(" ")));
    }
    if let Some(error) = error {
        text.push_str(&format!(",error=\"{error}\""));
    }
    text
}

fn needed(scope: &Scope) -> Value {
    match scope {
        Scope::Catalog => {
            json!({"Type": "registry", "Class": "", "Name": "catalog", "Action": "*"})
        }
        Scope::Repository { name, actions } => json!({
            "Type": "repository", "Class": "", "Name": name.as_str(), "Action": actions.to_string(),
        }),
    }
}

fn domain(error: registry::Error) -> Row {
    use registry::Error as E;
    let (status, code) = match &error {
        E::BlobUnknown => (StatusCode::NOT_FOUND, Code::BlobUnknown),
        E::BlobReferenced { .. } | E::ManifestNeeded(_) => {
            (StatusCode::METHOD_NOT_ALLOWED, Code::Unsupported)
        }
        E::UploadInvalid(_) | E::BodyCutOff => (StatusCode::BAD_REQUEST, Code::BlobUploadInvalid),
        E::BodyLate => (StatusCode::REQUEST_TIMEOUT, Code::Unavailable),
        E::UploadUnknown => (StatusCode::NOT_FOUND, Code::BlobUploadUnknown),
        E::OutOfOrder { .. } => (StatusCode::RANGE_NOT_SATISFIABLE, Code::BlobUploadInvalid),
        E::Superseded => (StatusCode::CONFLICT, Code::BlobUploadInvalid),
        E::DigestMismatch | E::DigestInvalid(_) => (StatusCode::BAD_REQUEST, Code::DigestInvalid),
        E::SizeInvalid => (StatusCode::BAD_REQUEST, Code::SizeInvalid),
        E::ManifestReferencesUnknown(_) => (StatusCode::BAD_REQUEST, Code::ManifestBlobUnknown),
        E::ManifestInvalid(_) => (StatusCode::BAD_REQUEST, Code::ManifestInvalid),
        E::ManifestUnknown | E::TagUnknown(..) => (StatusCode::NOT_FOUND, Code::ManifestUnknown),
        E::BlobTooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, Code::SizeInvalid),
        E::ManifestTooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, Code::ManifestInvalid),
        E::NameUnknown => (StatusCode::NOT_FOUND, Code::NameUnknown),
        E::StoreFull => (StatusCode::INSUFFICIENT_STORAGE, Code::Denied),
        E::ReadOnly => (StatusCode::METHOD_NOT_ALLOWED, Code::Unsupported),
        E::RightsUnavailable
        | E::Abandoned
        | E::Busy(_)
        | E::WriterBusy
        | E::TakenOver
        | E::SwitchUnknown
        | E::Closing
        | E::DatabaseAway(_)
        | E::StoreAway(_) => (StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable),
        E::TooManySessions { .. } | E::TooManyUnfinishedBytes { .. } => {
            (StatusCode::TOO_MANY_REQUESTS, Code::TooManyRequests)
        }
        E::Store(_) | E::Metadata(_) => (StatusCode::INTERNAL_SERVER_ERROR, Code::Unknown),
    };
    let message = if status == StatusCode::INTERNAL_SERVER_ERROR {
        "the registry failed: its log has the reason".to_owned()
    } else {
        error.to_string()
    };
    let mut row = Row::new(status, code, message);
    match error {
        E::BlobReferenced { by } => row.details = vec![json!({ "manifest": by.as_str() })],
        E::ManifestReferencesUnknown(missing) => {
            let missing = missing.iter().take(MISSING_TOLD_MAX);
            row.details = missing.map(|digest| json!({ "digest": digest.as_str() })).collect();
        }
        E::RightsUnavailable
        | E::Busy(_)
        | E::WriterBusy
        | E::TakenOver
        | E::Closing
        | E::SwitchUnknown
        | E::DatabaseAway(_)
        | E::StoreAway(_) => {
            row = row.with_header(header::RETRY_AFTER, "2");
        }
        E::TooManySessions { .. } | E::TooManyUnfinishedBytes { .. } => {
            row = row.with_header(header::RETRY_AFTER, UPLOADS_RETRY_SECS);
        }
        _ => {}
    }
    row
}
