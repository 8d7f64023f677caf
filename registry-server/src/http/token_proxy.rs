//! `/token` on the registry's own origin, passed on to `auth-server` over the private socket:
//! clients refuse a token endpoint on another host, step by step (auth 2.10).

use axum::{
    Extension,
    body::Body,
    extract::{Request, State},
    http::{HeaderName, Method, StatusCode, Uri, header},
    response::Response,
};
use berth_shared::{
    error::{Code, ErrorBody},
    link::{CLIENT_ADDRESS_HEADER, TOKEN_PATH},
    serve::log::{LogFields, REQUEST_ID_HEADER, RequestId},
    telemetry::chain,
};
use serde_json::Value;

use super::{App, client_address::ClientAddress, json, value};

/// The request headers that the token endpoint reads. No other is passed on, so that nobody can
/// slip in one that is believed on the private socket.
const PASSED_ON: [HeaderName; 6] = [
    header::AUTHORIZATION,
    header::CONTENT_TYPE,
    header::CONTENT_LENGTH,
    header::ACCEPT,
    header::USER_AGENT,
    header::EXPECT,
];

/// Passes the request on, streaming both ways.
pub(super) async fn forward(
    State(app): State<App>,
    Extension(client): Extension<ClientAddress>,
    Extension(id): Extension<RequestId>,
    request: Request,
) -> Response {
    if !matches!(*request.method(), Method::GET | Method::POST) {
        let mut response = failure(
            StatusCode::METHOD_NOT_ALLOWED,
            Code::Unsupported,
            "the token endpoint answers GET and POST",
        );
        response.headers_mut().insert(header::ALLOW, value("GET, POST"));
        return response;
    }
    let Some(link) = app.issuer.link() else {
        let message = "tokens come from another server: see the realm of the challenge";
        return failure(StatusCode::NOT_FOUND, Code::Unsupported, message);
    };
    match link.forward(to_auth_server(request, client, id)).await {
        Ok(response) => response.map(Body::new),
        Err(error) => {
            let mut response = failure(
                StatusCode::SERVICE_UNAVAILABLE,
                Code::Unavailable,
                "sign-in is not available at the moment: try again in a few seconds",
            );
            response.headers_mut().insert(header::RETRY_AFTER, value("2"));
            let fields = LogFields { error: Some(chain(&error)), ..LogFields::default() };
            response.extensions_mut().insert(fields);
            response
        }
    }
}

fn to_auth_server(request: Request, client: ClientAddress, id: RequestId) -> Request {
    let (parts, body) = request.into_parts();
    let target = match parts.uri.query() {
        Some(query) => format!("{TOKEN_PATH}?{query}"),
        None => TOKEN_PATH.to_owned(),
    };
    let mut forwarded = Request::new(body);
    *forwarded.method_mut() = parts.method;
    *forwarded.uri_mut() = target.parse().unwrap_or(Uri::from_static(TOKEN_PATH));
    let headers = forwarded.headers_mut();
    headers.insert(header::HOST, value("auth-server"));
    headers.insert(REQUEST_ID_HEADER, value(id.to_string()));
    for name in PASSED_ON {
        // Every value of it: several credentials are for the token endpoint to refuse.
        for value in parts.headers.get_all(&name) {
            headers.append(name.clone(), value.clone());
        }
    }
    if let Some(address) = client.0 {
        headers.insert(HeaderName::from_static(CLIENT_ADDRESS_HEADER), value(address.to_string()));
    }
    forwarded
}

fn failure(status: StatusCode, code: Code, message: &str) -> Response {
    json(status, ErrorBody::new(code, message, Value::Null).to_json())
}
