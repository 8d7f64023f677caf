//! HTTP: every request takes the same steps, in the same order.
//!
//! `Line::parse` → `endpoint.access()` → `authorize` gives a `Permit` → one domain call →
//! response headers. What fails on the way becomes an answer in one place.

mod authorize;
pub(crate) mod basic;
mod blobs;
mod body;
mod call;
mod client_address;
mod cors;
mod credentials;
pub(crate) mod endpoint;
mod error;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod lists;
mod manifests;
mod multipart;
pub mod origin;
mod query;
mod range;
mod token_proxy;
mod uploads;

use std::{io, net::IpAddr, sync::Arc};

use ::metrics::counter;
use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header, request::Parts},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::any,
};
use berth_shared::{
    auth_api::{CLIENT_ADDRESS_HEADER, TOKEN_PATH},
    claimant::Claimant,
    clock::rfc3339,
    digest::Digest,
    name::RepositoryName,
    serve::{
        Late, health, host,
        log::{self, REQUEST_ID_HEADER, RequestId},
        metrics::Names,
        socket::SocketFile,
    },
    token::VerifiedToken,
};
use bytes::Bytes;
use futures_util::TryStreamExt;
use ipnet::IpNet;
use tokio_util::task::TaskTracker;

use crate::{
    authz::Authorizer,
    issuer::Issuer,
    metadata::Asker,
    metrics,
    registry::{Registry, content::Content},
};
use basic::Exchange;
use call::Call;
use client_address::ClientAddress;
use endpoint::{Line, NotAnEndpoint, Operation};
use error::{Answer, Error};
use origin::Origin;
use query::Query;

/// Says which API this is; clients look for it on every answer (auth R19).
const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");

/// Names the content that an answer is about.
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// How requests are told apart in metrics.
const NAMES: Names = Names { server: metrics::SERVER, endpoint: endpoint::word };

/// What the handlers need. It is shared and never cloned: each layer of each request under way has it.
pub(crate) struct App {
    pub(crate) registry: Registry,
    pub(crate) authorizer: Authorizer,
    pub(crate) issuer: Issuer,
    pub(crate) service: Arc<str>,
    pub(crate) origins: Arc<[Origin]>,
    pub(crate) trusted_proxies: Arc<[IpNet]>,
    /// The origins of pages that may use the API.
    pub(crate) cors: Arc<[Origin]>,
    /// Where `Basic` is taken.
    pub(crate) basic: Option<Exchange>,
    /// What is under way and outlives its client.
    pub(crate) uploads: TaskTracker,
    /// The control socket, by which the verbs reach the server.
    pub(crate) control: Option<SocketFile>,
}

/// The public routes. There are few layers, since each costs a request as much as a look at a tag.
pub(crate) fn router(app: Arc<App>) -> Router {
    let api = Router::new()
        .route(TOKEN_PATH, any(token_proxy::forward))
        .fallback(dispatch)
        .with_state(app.clone());
    let api = match cors::layer(&app.cors) {
        Some(layer) => api.layer(layer),
        None => api,
    };
    api.merge(health_routes(app.clone(), health::Audience::Public))
        .layer(middleware::from_fn_with_state(app, enter))
        .layer(middleware::from_fn_with_state(NAMES, log::requests))
}

/// Middleware: what every request must say, and what every answer carries, whoever made it. The
/// client's address is worked out once, for the token endpoint and the log.
async fn enter(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let client = ClientAddress::of(&request, &app.trusted_proxies);
    request.extensions_mut().insert(client);
    let mut response = match host::check(&request) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal,
    };
    response.extensions_mut().get_or_insert_default::<log::LogFields>().client = client.0;
    let headers = response.headers_mut();
    headers.insert(API_VERSION, HeaderValue::from_static("registry/2.0"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // What one may read, another may not: no cache in front may serve it to both.
    headers.append(header::VARY, HeaderValue::from_static("Authorization"));
    response
}

/// Health alone, for the control socket and as part of the public routes.
pub(crate) fn health_routes(app: Arc<App>, audience: health::Audience) -> Router {
    health::routes(audience, move || {
        let app = app.clone();
        async move {
            app.control.as_ref().map_or(Ok(()), SocketFile::check)?;
            app.issuer.check()?;
            app.registry.check().await.map_err(|error| berth_shared::telemetry::chain(&error))
        }
    })
}

/// One request on the distribution API, which is all that lies below `/v2/`.
async fn dispatch(State(app): State<Arc<App>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    if !endpoint::is_of_api(parts.uri.path()) {
        return StatusCode::NOT_FOUND.into_response();
    }
    let content = content_of(&parts.headers, body);
    let line = Line::parse(&parts.method, parts.uri.path());
    let query = Query::parse(parts.uri.query());
    let outlives = outlives_its_client(line.as_ref().ok().and_then(Line::operation), &query);
    let tasks = app.uploads.clone();
    let answer = Box::pin(app.answer(parts, content, line, query));
    if !outlives {
        return answer.await;
    }
    // A handler is dropped when its client leaves, with all that it waits for.
    match tasks.spawn(answer).await {
        Ok(response) => response,
        Err(panicked) => {
            tracing::error!(error = %panicked, "a request handler panicked");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// Whether a request comes to its end when its client has left: the bytes that an upload received
/// are counted, a blob whose last byte has come is made, and what a session held is given back.
fn outlives_its_client(operation: Option<&Operation>, query: &Query) -> bool {
    match operation {
        Some(Operation::StartUpload) => query.get("digest").is_some(),
        Some(
            Operation::AppendUpload { .. }
            | Operation::CommitUpload { .. }
            | Operation::CancelUpload { .. },
        ) => true,
        _ => false,
    }
}

fn content_of(headers: &HeaderMap, body: Body) -> Content {
    let announced = headers.get(header::CONTENT_LENGTH);
    let announced = announced.and_then(|length| length.to_str().ok()?.parse().ok());
    let chunked = headers.contains_key(header::TRANSFER_ENCODING);
    let empty = http_body::Body::is_end_stream(&body);
    let length = if empty { Some(0) } else { announced.filter(|_| !chunked) };
    Content::new(body.into_data_stream().map_err(broken_body), length)
}

fn broken_body(error: axum::Error) -> io::Error {
    let is_late = Late::is_behind(&error);
    io::Error::new(if is_late { io::ErrorKind::TimedOut } else { io::ErrorKind::Other }, error)
}

impl App {
    async fn answer(
        self: Arc<Self>,
        parts: Parts,
        mut content: Content,
        line: Result<Line, NotAnEndpoint>,
        query: Query,
    ) -> Response {
        let mut fields = log::LogFields::default();
        let answer = self.handle(&parts, &mut content, line, &query, &mut fields).await;
        let mut response = match answer {
            Ok(response) => response,
            Err(error) => {
                // A client that waits for "100 Continue" has sent nothing yet.
                if !parts.headers.contains_key(header::EXPECT) {
                    content.drain().await;
                }
                if let Error::Denied(denied) = &error {
                    let reason = denied.reason.word();
                    counter!("berth_requests_denied_total", "reason" => reason).increment(1);
                }
                fields.error = error.for_the_log();
                fields.limit = error.limit();
                fields.subject = fields.subject.or_else(|| error.subject());
                error.into_response(&self.realm(&parts), &self.service)
            }
        };
        response.extensions_mut().insert(fields);
        response
    }

    /// Where a client gets tokens: on the origin that it used, if that is one of the list.
    fn realm(&self, parts: &Parts) -> String {
        match self.issuer.realm() {
            Some(realm) => realm.to_owned(),
            None => origin::choose(&self.origins, &parts.uri, &parts.headers).realm(),
        }
    }

    async fn handle(
        &self,
        parts: &Parts,
        content: &mut Content,
        line: Result<Line, NotAnEndpoint>,
        query: &Query,
        fields: &mut log::LogFields,
    ) -> Answer {
        let line = line.map_err(Error::NotAnEndpoint)?;
        let access = line.endpoint.access(query.mount_source());
        fields.repository = access.repository().map(RepositoryName::to_string);
        let digest = line.operation().and_then(Operation::digest);
        fields.digest = digest.map(ToString::to_string);
        let address = parts.extensions.get::<ClientAddress>().and_then(|client| client.0);
        // Nobody has signed in yet, and a session may be looked up all the same.
        let stranger = Asker::Client(Arc::new(Claimant::stranger(address)));
        let authorized = stranger.scope(self.authorize(&line, &access, parts)).await?;
        fields.subject = Some(authorized.token.subject.to_string());
        if let Some(allowed) = line.not_allowed {
            return Err(Error::MethodNotAllowed(allowed));
        }
        let claimant = Arc::new(Claimant::of(&authorized.token.subject, address));
        let call = Call { app: self, parts, query, token: &authorized.token, claimant: &claimant };
        let permit = authorized.permit.as_ref();
        let asker = Asker::Client(Arc::clone(&claimant));
        let answer = asker.scope(call.answer(&line.endpoint, permit, content)).await;
        answer.map(|response| warn_of_end(response, &authorized.token))
    }
}

/// Tells the client that its robot's secret ends soon, in the form that the distribution
/// specification gives warnings.
fn warn_of_end(mut response: Response, token: &VerifiedToken) -> Response {
    if let Some(end) = token.claims.secret_expires {
        let (subject, end) = (&token.subject, rfc3339(end));
        let warning = format!("299 - \"the secret of {subject} ends at {end}\"");
        response.headers_mut().append(header::WARNING, value(warning));
    }
    response
}

/// An answer of JSON. The content type stands alone: clients compare it whole.
fn json(status: StatusCode, body: impl Into<Body>) -> Response {
    let json = HeaderValue::from_static("application/json");
    (status, [(header::CONTENT_TYPE, json)], body.into()).into_response()
}

/// Says where content lies that was stored.
fn created(location: String, digest: &Digest) -> Response {
    let headers = [(header::LOCATION, value(location)), (CONTENT_DIGEST, value(digest.as_str()))];
    (StatusCode::CREATED, headers).into_response()
}

/// A request to the token endpoint of `auth-server`, and whom it is for.
fn token_request(
    query: Option<&str>,
    client: Option<IpAddr>,
    id: Option<RequestId>,
) -> http::Request<Bytes> {
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    let mut request = http::Request::new(Bytes::new());
    *request.uri_mut() =
        format!("{TOKEN_PATH}{query}").parse().unwrap_or(Uri::from_static(TOKEN_PATH));
    let headers = request.headers_mut();
    headers.insert(header::HOST, value("auth-server"));
    if let Some(id) = id {
        headers.insert(REQUEST_ID_HEADER, value(id.to_string()));
    }
    if let Some(client) = client {
        headers.insert(CLIENT_ADDRESS_HEADER, value(client.to_string()));
    }
    request
}

/// A header value out of text that has no line ends: paths, digests, numbers.
fn value(text: impl Into<String>) -> HeaderValue {
    HeaderValue::try_from(text.into()).unwrap_or(HeaderValue::from_static(""))
}
