//! Health: `/healthz` says that the process answers, `/readyz` that what it needs answers too.

use std::path::Path;

use axum::{
    Router,
    body::Body,
    http::{Request, StatusCode},
    response::{IntoResponse, Response},
    routing::get,
};

use crate::client;

/// Answers 200 while the process can answer at all.
pub const HEALTHZ_PATH: &str = "/healthz";
/// Answers 200 when requests can be served, else 503 with the reason.
pub const READYZ_PATH: &str = "/readyz";

/// Who may read why a server is not ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// Everybody: the reason stays in the log.
    Public,
    /// Whoever may open the private socket.
    Private,
}

/// The two routes; `ready` says what is missing.
pub fn routes<S, F, Fut>(audience: Audience, ready: F) -> Router<S>
where
    S: Clone + Send + Sync + 'static,
    F: Fn() -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<(), String>> + Send,
{
    let readyz = move || {
        let answer = ready();
        async move { readiness(audience, answer.await) }
    };
    Router::new().route(HEALTHZ_PATH, get(|| async { "ok\n" })).route(READYZ_PATH, get(readyz))
}

fn readiness(audience: Audience, ready: Result<(), String>) -> Response {
    match ready {
        Ok(()) => "ready\n".into_response(),
        Err(reason) => {
            tracing::warn!(reason, "not ready");
            let told = match audience {
                Audience::Public => "not ready: see the server's log\n".to_owned(),
                Audience::Private => format!("not ready: {reason}\n"),
            };
            (StatusCode::SERVICE_UNAVAILABLE, told).into_response()
        }
    }
}

/// Asks the server behind `socket` whether it is ready: the `health` verb of both servers.
///
/// # Errors
/// What a person should read, when it is not.
pub async fn ask(socket: &Path) -> Result<(), String> {
    let request = Request::get(READYZ_PATH)
        .header(http::header::HOST, "localhost")
        .body(Body::empty())
        .map_err(|error| error.to_string())?;
    let response = client::fetch(socket, request, 4096)
        .await
        .map_err(|error| crate::telemetry::chain(&error))?;
    if response.status().is_success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(response.body()).trim().to_owned())
    }
}
