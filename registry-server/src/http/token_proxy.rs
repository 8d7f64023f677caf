//! `/token` on the registry's own origin, passed on to `auth-server` over the private socket or the link:
//! clients refuse a token endpoint on another host, step by step (auth 2.10).
//!
//! A request is read whole before `auth-server` hears of it: the connections of the private socket
//! are few, and anybody at all may send half a request.

use std::sync::Arc;

use axum::{
    Extension,
    body::Body,
    extract::{Request, State},
    http::{HeaderName, Method, StatusCode, header, request::Parts},
    response::Response,
};
use berth_shared::{
    auth_api::{LINK_SECRET_HEADER, TOKEN_BODY_BYTES_MAX, TOKEN_BODY_LIMIT, TOKEN_BODY_TIMEOUT},
    claimant::{Claimant, network_of},
    error::Code,
    serve::{
        Late,
        budget::Share,
        log::{LogFields, RequestId},
        refusal,
    },
    telemetry::chain,
};
use bytes::Bytes;
use http_body::Body as _;
use http_body_util::BodyExt;
use tokio::time::timeout;

use super::{App, client_address::ClientAddress, token_request, value};

/// The request headers that the token endpoint reads. No other is passed on, so that nobody can
/// slip in one that is believed on the private socket.
const PASSED_ON: [HeaderName; 4] =
    [header::AUTHORIZATION, header::CONTENT_TYPE, header::ACCEPT, header::USER_AGENT];

/// What turned a sign-in away, as far as is known here: `auth-server` logs the name of the limit.
const SIGN_IN_LIMITS: &str = "auth-server's limits of sign-in";

/// Passes the request on.
pub(super) async fn forward(
    State(app): State<Arc<App>>,
    Extension(client): Extension<ClientAddress>,
    Extension(id): Extension<RequestId>,
    request: Request,
) -> Response {
    if !matches!(*request.method(), Method::GET | Method::POST) {
        let mut response = refusal(
            StatusCode::METHOD_NOT_ALLOWED,
            Code::Unsupported,
            "the token endpoint answers GET and POST",
        );
        response.headers_mut().insert(header::ALLOW, value("GET, POST"));
        return response;
    }
    let Some(auth_client) = app.issuer.auth_client() else {
        let message = "tokens come from another server: see the realm of the challenge";
        return refusal(StatusCode::NOT_FOUND, Code::Unsupported, message);
    };
    let (parts, body) = request.into_parts();
    let whole = match parts.method {
        Method::POST => {
            let stranger = Arc::new(Claimant::stranger(client.0));
            read(body, &app.registry.shares(&stranger).memory).await
        }
        _ => Ok(Bytes::new()),
    };
    let bytes = match whole {
        Ok(bytes) => bytes,
        Err(refusal) => return *refusal,
    };
    let forwarded = to_auth_server(parts, bytes, client, id);
    match auth_client.forward(forwarded, client.0.map(network_of)).await {
        Ok(response) if response.status() == StatusCode::TOO_MANY_REQUESTS => {
            limited(response.map(Body::from), SIGN_IN_LIMITS)
        }
        Ok(response) if response.status().is_redirection() => {
            unavailable(format!("auth-server answered {}", response.status()))
        }
        Ok(response) => without_words_of_the_link(response.map(Body::from)),
        Err(error) => unavailable(chain(&error)),
    }
}

/// An answer as clients may see it.
fn without_words_of_the_link(mut response: Response) -> Response {
    response.headers_mut().remove(LINK_SECRET_HEADER);
    response
}

/// An answer for whom a limit turned away.
fn limited(mut response: Response, limit: &'static str) -> Response {
    response.extensions_mut().get_or_insert_default::<LogFields>().limit = Some(limit);
    response
}

/// Reads a body, or one byte more than `auth-server` takes, so that the refusal is its own. Gives the
/// answer where it cannot be read.
async fn read(mut body: Body, memory: &Share) -> Result<Bytes, Box<Response>> {
    const MOST: usize = TOKEN_BODY_BYTES_MAX + 1;
    let announced = body.size_hint().upper().and_then(|length| usize::try_from(length).ok());
    let room = memory.reserve(announced.unwrap_or(MOST).min(MOST)).await;
    let room = room.map_err(|busy| limited(unavailable(busy.to_string()), busy.limit))?;
    let mut whole = Vec::with_capacity(room.amount());
    let cut = || refusal(StatusCode::BAD_REQUEST, Code::Unsupported, "the body was cut off");
    let late = || {
        let message = "the body did not come in time";
        limited(refusal(StatusCode::REQUEST_TIMEOUT, Code::Unsupported, message), TOKEN_BODY_LIMIT)
    };
    let failed = |error: axum::Error| if Late::is_behind(&error) { late() } else { cut() };
    // The wait for room is none of the client's time.
    let come = timeout(TOKEN_BODY_TIMEOUT, async {
        while whole.len() < MOST {
            let Some(frame) = body.frame().await else { break };
            let Ok(data) = frame.map_err(|error| Box::new(failed(error)))?.into_data() else {
                continue;
            };
            whole.extend_from_slice(&data[..data.len().min(MOST - whole.len())]);
        }
        Ok::<_, Box<Response>>(())
    });
    come.await.unwrap_or_else(|_| Err(Box::new(late())))?;
    Ok(room.hold(whole))
}

fn unavailable(error: String) -> Response {
    let mut response = refusal(
        StatusCode::SERVICE_UNAVAILABLE,
        Code::Unavailable,
        "sign-in is not available at the moment: try again in a few seconds",
    );
    response.headers_mut().insert(header::RETRY_AFTER, value("2"));
    response.extensions_mut().insert(LogFields { error: Some(error), ..LogFields::default() });
    response
}

fn to_auth_server(
    parts: Parts,
    bytes: Bytes,
    client: ClientAddress,
    id: RequestId,
) -> http::Request<Bytes> {
    let mut forwarded = token_request(parts.uri.query(), client.0, Some(id));
    *forwarded.method_mut() = parts.method;
    *forwarded.body_mut() = bytes;
    for name in PASSED_ON {
        // Every value of it: several credentials are for the token endpoint to refuse.
        for value in parts.headers.get_all(&name) {
            forwarded.headers_mut().append(name.clone(), value.clone());
        }
    }
    forwarded
}
