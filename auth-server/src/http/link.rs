//! The link: what the private socket answers, over a network, to whoever shows the secret.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderName, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use berth_shared::{
    auth_api::LINK_SECRET_HEADER,
    link_secret::LinkSecretFile,
    serve::{self, health::Audience, log::LogFields},
};
use metrics::counter;

use super::{Socket, logged, routes};
use crate::server::AuthServer;

/// What turns strangers away, by the name of its setting.
const SECRET: &str = "link.secret_file";

/// Says that it is the secret that is refused.
const REFUSED: HeaderName = HeaderName::from_static(LINK_SECRET_HEADER);

/// A request whose secret was right.
#[derive(Clone, Copy)]
struct Known;

/// Its routes.
pub(crate) fn link(server: Arc<AuthServer>, secret: LinkSecretFile) -> Router {
    let routes = routes(server, Audience::Private, Socket::Private);
    logged(routes.layer(middleware::from_fn(admit)))
        .layer(middleware::from_fn_with_state(Arc::new(secret), recognise))
}

/// Middleware outside all others: looks at the secret, and at nothing else. With it a request keeps the id
/// that it has at the registry.
async fn recognise(
    State(secret): State<Arc<LinkSecretFile>>,
    mut request: Request,
    next: Next,
) -> Response {
    let mut shown = request.headers().get_all(LINK_SECRET_HEADER).iter();
    let is_right = match (shown.next(), shown.next()) {
        (Some(shown), None) => secret.fresh().take(shown.as_bytes()),
        _ => false,
    };
    if is_right {
        request.extensions_mut().insert(Known);
        return serve::log::keep_id(request, next).await;
    }
    next.run(request).await
}

/// Middleware inside the log alone: without the secret nothing is answered.
async fn admit(request: Request, next: Next) -> Response {
    if request.extensions().get::<Known>().is_some() {
        return next.run(request).await;
    }
    counter!("berth_link_refusals_total").increment(1);
    // A guess costs a handshake. The other header tells it from what a wrong password gets.
    let headers = [(header::CONNECTION, "close"), (REFUSED, "refused")];
    let mut response = (StatusCode::UNAUTHORIZED, headers).into_response();
    let fields = LogFields { limit: Some(SECRET), ..LogFields::default() };
    response.extensions_mut().insert(fields);
    response
}
