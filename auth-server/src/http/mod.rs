//! The routes: `/token` and `/keys` for everybody, the table of revocations and the rules of a
//! subject on the private socket and the link alone.

mod credentials;
mod error;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod link;
mod parameters;
mod policy;
mod token;

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{MethodRouter, get},
};
use berth_shared::{
    auth_api,
    serve::{
        self,
        etag::has_already,
        health::{Audience, HEALTHZ_PATH, READYZ_PATH},
        metrics::Names,
    },
    telemetry::chain,
};
use data_encoding::HEXLOWER;
use ring::digest;
use serde::Serialize;

use self::error::{Error, Refusal};
pub(crate) use self::link::link;
use crate::{keys::KEYS_AGE_SECS_MAX, metrics, server::AuthServer};

/// Says which protocol is spoken here (auth R19).
const API_VERSION: (HeaderName, HeaderValue) = (
    HeaderName::from_static("docker-distribution-api-version"),
    HeaderValue::from_static("registry/2.0"),
);

/// How requests are told apart in metrics.
const NAMES: Names = Names { server: metrics::SERVER, endpoint: word };

/// Whether requests come through the registry, whose word on the client's address and on the
/// request's id is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Socket {
    Private,
    Public,
}

/// What every handler is given.
#[derive(Clone)]
struct Door {
    server: Arc<AuthServer>,
    socket: Socket,
}

/// The routes of the private socket.
pub(crate) fn private(server: Arc<AuthServer>) -> Router {
    logged(routes(server, Audience::Private, Socket::Private))
        .layer(middleware::from_fn(serve::log::keep_id))
}

/// The routes of the public listener.
pub(crate) fn public(server: Arc<AuthServer>) -> Router {
    logged(routes(server, Audience::Public, Socket::Public))
}

fn routes(server: Arc<AuthServer>, audience: Audience, socket: Socket) -> Router {
    let looking = Arc::clone(&server);
    let ready = move || {
        let server = Arc::clone(&looking);
        async move { server.ready().await }
    };
    let mut routes = serve::health::routes(audience, ready)
        .route(auth_api::TOKEN_PATH, token_route())
        .route(auth_api::KEYS_PATH, only_get(get(keys)));
    if socket == Socket::Private {
        routes = routes
            .route(auth_api::REVOCATIONS_PATH, only_get(get(policy::revocations)))
            .route(auth_api::RIGHTS_PATH, only_get(get(policy::rights)));
    }
    routes
        .fallback(|| async { Error::refused(Refusal::NoSuchPath) })
        .layer(middleware::from_fn(enter))
        .with_state(Door { server, socket })
}

fn logged(routes: Router) -> Router {
    routes.layer(middleware::from_fn_with_state(NAMES, serve::log::requests))
}

/// The word in metrics for what a request asks for: one of these, whatever the client sends.
fn word(_: &Method, path: &str) -> &'static str {
    match path {
        auth_api::TOKEN_PATH => "token",
        auth_api::KEYS_PATH => "keys",
        auth_api::REVOCATIONS_PATH => "revocations",
        auth_api::RIGHTS_PATH => "rights",
        HEALTHZ_PATH | READYZ_PATH => "health",
        _ => "other",
    }
}

/// HEAD of a token would issue one and throw it away, so it is refused like any other method.
fn token_route() -> MethodRouter<Door> {
    let refuse = || async { Error::refused(Refusal::Method("GET, POST")) };
    get(token::get).post(token::post).head(refuse).fallback(refuse)
}

fn only_get(route: MethodRouter<Door>) -> MethodRouter<Door> {
    route.fallback(|| async { Error::refused(Refusal::Method("GET, HEAD")) })
}

/// Middleware: what every request must say, and what every answer carries.
async fn enter(request: Request, next: Next) -> Response {
    let mut response = match serve::host::check(&request) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal,
    };
    response.headers_mut().insert(API_VERSION.0, API_VERSION.1);
    response
}

/// The verification keys. A key is among them for longer than a cache may keep them before it
/// signs.
async fn keys(
    axum::extract::State(door): axum::extract::State<Door>,
    headers: HeaderMap,
) -> Result<Response, Error> {
    let cache = format!("public, max-age={KEYS_AGE_SECS_MAX}");
    let keys = door.server.fresh_keys().await;
    let keys = keys.map_err(|error| Error::because(Refusal::Unavailable, chain(&error)))?;
    Ok(tagged(&headers, "application/jwk-set+json", &cache, keys.jwks()))
}

/// A body as JSON.
fn json(status: StatusCode, body: &impl Serialize) -> Response {
    let body = serde_json::to_string(body).unwrap_or_default();
    let json = HeaderValue::from_static("application/json");
    (status, [(header::CONTENT_TYPE, json)], body).into_response()
}

/// A body with an `ETag`, or 304 when the client has it already (RFC 9110 §13.1.2).
fn tagged(request: &HeaderMap, content_type: &'static str, cache: &str, body: &str) -> Response {
    let hash = digest::digest(&digest::SHA256, body.as_bytes());
    let tag = format!("\"{}\"", HEXLOWER.encode(&hash.as_ref()[..16]));
    let is_had = has_already(request, &tag);
    let headers = [(header::ETAG, tag), (header::CACHE_CONTROL, cache.to_owned())];
    if is_had {
        return (StatusCode::NOT_MODIFIED, headers).into_response();
    }
    (headers, [(header::CONTENT_TYPE, content_type)], Body::from(body.to_owned())).into_response()
}
