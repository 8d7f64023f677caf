//! Pages of other origins: a browser lets them use the API where the settings name their origin
//! (Fetch §3.3, CORS).
//!
//! A page signs in as every client does, by the challenge and with a token; what a browser would send
//! by itself, such as cookies, is never asked for.

use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, Method, header};
use tower_http::cors::CorsLayer;

use super::{
    API_VERSION, CONTENT_DIGEST,
    lists::FILTERS_APPLIED,
    manifests::{OCI_SUBJECT, OCI_TAG},
    origin::Origin,
    uploads::UPLOAD_UUID,
};

/// How long a browser remembers what it was told.
const REMEMBERED: Duration = Duration::from_secs(600);

/// What a page may send.
const SENT: [HeaderName; 7] = [
    header::ACCEPT,
    header::AUTHORIZATION,
    header::CONTENT_RANGE,
    header::CONTENT_TYPE,
    header::IF_NONE_MATCH,
    header::IF_RANGE,
    header::RANGE,
];

/// What a page may read besides what every answer shows.
const READ: [HeaderName; 16] = [
    header::ACCEPT_RANGES,
    API_VERSION,
    CONTENT_DIGEST,
    header::CONTENT_LENGTH,
    header::CONTENT_RANGE,
    header::ETAG,
    FILTERS_APPLIED,
    header::LINK,
    header::LOCATION,
    header::RANGE,
    header::RETRY_AFTER,
    OCI_SUBJECT,
    OCI_TAG,
    UPLOAD_UUID,
    header::WARNING,
    header::WWW_AUTHENTICATE,
];

/// Says to browsers that pages of these origins may. Those of any other are not named in the answer,
/// so that a browser lets nothing through; without origins nothing is said at all.
pub(super) fn layer(origins: &[Origin]) -> Option<CorsLayer> {
    if origins.is_empty() {
        return None;
    }
    let origins = origins.iter().filter_map(|it| HeaderValue::from_str(&it.to_string()).ok());
    let methods =
        [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
    let layer = CorsLayer::new()
        .allow_origin(origins.collect::<Vec<_>>())
        .allow_methods(methods)
        .allow_headers(SENT)
        .expose_headers(READ)
        .max_age(REMEMBERED);
    Some(layer)
}
