//! One log line per request, written when the answer has been sent or given up; metrics are counted
//! at the same moment.
//!
//! The line never holds a credential: headers and query strings are not logged at all.

use std::{
    fmt,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderName, HeaderValue, Method, StatusCode},
    middleware::Next,
    response::Response,
};
use bytes::Bytes;
use http_body::Frame;
use http_body_util::BodyExt;
use metrics::{Label, counter, histogram};
use ring::rand::{SecureRandom, SystemRandom};
use tokio::time::Instant;

use super::{
    PeerAddress,
    health::{HEALTHZ_PATH, READYZ_PATH},
    metrics::{Names, class},
    refusals,
};
use crate::auth_api::{KEYS_PATH, REVOCATIONS_PATH};

/// Names the request to the client, and on the private socket to `auth-server`.
pub const REQUEST_ID_HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// What a request is found by, in the log of every server that works on it: an extension of the
/// request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestId(u64);

impl RequestId {
    /// 64 random bits are enough to find a line by; where the system has none, the line goes
    /// without.
    fn generate() -> Self {
        let mut bytes = [0_u8; 8];
        let _ = SystemRandom::new().fill(&mut bytes);
        Self(u64::from_be_bytes(bytes))
    }

    /// The id that `request` carries in its header, if it is one of ours.
    fn shown(request: &Request) -> Option<Self> {
        let text = request.headers().get(REQUEST_ID_HEADER)?.to_str().ok()?;
        let id = Self(u64::from_str_radix(text, 16).ok()?);
        (id.to_string() == text).then_some(id)
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Middleware outside [`requests`], for a socket that only the other server reaches: the request
/// keeps the id that it has there.
pub async fn keep_id(mut request: Request, next: Next) -> Response {
    if let Some(id) = RequestId::shown(&request) {
        request.extensions_mut().insert(id);
    }
    next.run(request).await
}

/// What a handler adds to the line: an extension of the response.
#[derive(Debug, Clone, Default)]
pub struct LogFields {
    /// Who asked, as far as the token says.
    pub subject: Option<String>,
    /// Which repository.
    pub repository: Option<String>,
    /// Which content.
    pub digest: Option<String>,
    /// The client's address where a trusted proxy stands in front.
    pub client: Option<IpAddr>,
    /// Why the request failed, causes included. Never shown to the client.
    pub error: Option<String>,
    /// The limit, by its name, that turned the request away: told once a minute, and in the line of the
    /// request, which is one of `debug` then.
    pub limit: Option<&'static str>,
}

/// Middleware: gives the request an id, logs it once and counts it once.
pub async fn requests(State(names): State<Names>, mut request: Request, next: Next) -> Response {
    let id = *request.extensions_mut().get_or_insert_with(RequestId::generate);
    let received = Arc::new(AtomicU64::new(0));
    let mut line = Line {
        id,
        began: Instant::now(),
        names,
        endpoint: (names.endpoint)(request.method(), request.uri().path()),
        method: request.method().clone(),
        path: shortened(request.uri().path()),
        client: request.extensions().get::<PeerAddress>().and_then(|peer| peer.0),
        status: None,
        fields: LogFields::default(),
        received: Arc::clone(&received),
        sent: 0,
    };
    request = request.map(|body| {
        Body::new(body.inspect_frame(move |frame| {
            received.fetch_add(length(frame), Ordering::Relaxed);
        }))
    });
    let mut response = next.run(request).await;
    line.status = Some(response.status());
    line.fields = response.extensions_mut().remove::<LogFields>().unwrap_or_default();
    if let Ok(value) = HeaderValue::try_from(id.to_string()) {
        response.headers_mut().insert(REQUEST_ID_HEADER, value);
    }
    response.map(|body| Body::new(body.inspect_frame(move |frame| line.sent(frame))))
}

fn length(frame: &Frame<Bytes>) -> u64 {
    frame.data_ref().map_or(0, |data| data.len() as u64)
}

/// A path as far as it is logged: the line is kept until the answer has gone.
fn shortened(path: &str) -> String {
    const BYTES_MAX: usize = 1024;
    if path.len() <= BYTES_MAX {
        return path.to_owned();
    }
    format!("{}…", &path[..path.floor_char_boundary(BYTES_MAX)])
}

struct Line {
    id: RequestId,
    began: Instant,
    names: Names,
    endpoint: &'static str,
    method: Method,
    path: String,
    client: Option<IpAddr>,
    /// `None` when the client left before there was an answer.
    status: Option<StatusCode>,
    fields: LogFields,
    received: Arc<AtomicU64>,
    sent: u64,
}

impl Line {
    /// Counts the request, once it has come to its end.
    fn count(&self, took: Duration, received_bytes: u64) {
        let status = self.status.map_or("none".into(), |status| status.as_str().to_owned());
        let labels = [
            Label::from_static_parts("server", self.names.server),
            Label::from_static_parts("endpoint", self.endpoint),
            Label::from_static_parts("method", class(&self.method)),
            Label::new("status", status),
        ];
        counter!("berth_requests_total", labels.iter()).increment(1);
        let whole = &labels[..2];
        histogram!("berth_request_duration_seconds", whole.iter()).record(took);
        counter!("berth_received_bytes_total", whole.iter()).increment(received_bytes);
        counter!("berth_sent_bytes_total", whole.iter()).increment(self.sent);
    }

    fn sent(&mut self, frame: &Frame<Bytes>) {
        self.sent += length(frame);
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let took = self.began.elapsed();
        let received_bytes = self.received.load(Ordering::Relaxed);
        self.count(took, received_bytes);
        macro_rules! log {
            ($level:expr) => {
                tracing::event!(
                    $level,
                    request = %self.id,
                    status = self.status.map(|status| status.as_u16()),
                    client = self.fields.client.or(self.client).map(tracing::field::display),
                    subject = self.fields.subject,
                    repository = self.fields.repository,
                    digest = self.fields.digest,
                    received_bytes,
                    sent_bytes = self.sent,
                    duration_ms = u64::try_from(took.as_millis()).unwrap_or(0),
                    error = self.fields.error,
                    limit = self.fields.limit,
                    "{} {}",
                    self.method,
                    self.path
                )
            };
        }
        // Asked every few seconds, by health checks and by the registry. Keys that are new are worth
        // a line.
        let is_probe = self.path == REVOCATIONS_PATH
            || self.path == KEYS_PATH && self.status == Some(StatusCode::NOT_MODIFIED);
        // Whoever looks has told the log what it found.
        let is_health = [HEALTHZ_PATH, READYZ_PATH].contains(&self.path.as_str());
        if let Some(limit) = self.fields.limit {
            refusals::note_from(limit, self.fields.client.or(self.client));
        }
        if self.fields.limit.is_some() || is_health {
            log!(tracing::Level::DEBUG);
        } else if self.status.is_some_and(|status| status.is_server_error()) {
            log!(tracing::Level::ERROR);
        } else if is_probe {
            log!(tracing::Level::DEBUG);
        } else {
            log!(tracing::Level::INFO);
        }
    }
}
