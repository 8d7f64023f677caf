//! Health: `/healthz` says that the process answers, `/readyz` that what it needs answers too.

use std::{path::Path, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    http::{Request, StatusCode},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::{sync::Mutex, time::Instant};

use crate::{client, shown::shown};

/// Answers 200 while the process can answer at all.
pub const HEALTHZ_PATH: &str = "/healthz";
/// Answers 200 when requests can be served, else 503 with the reason.
pub const READYZ_PATH: &str = "/readyz";

/// How long it is told what was found.
const KEPT: Duration = Duration::from_millis(250);

/// What was found, and when.
type Kept = (Instant, Result<(), String>);

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
    let kept = Arc::new(Mutex::new(None));
    let readyz = move || {
        let (ready, kept) = (ready.clone(), Arc::clone(&kept));
        async move { readiness(audience, look(&kept, ready).await) }
    };
    Router::new().route(HEALTHZ_PATH, get(|| async { "ok\n" })).route(READYZ_PATH, get(readyz))
}

/// What was found last, if that is new enough; whoever asks meanwhile waits for one look. So nobody
/// makes the server look more often by asking.
async fn look<F, Fut>(kept: &Mutex<Option<Kept>>, ready: F) -> Result<(), String>
where
    F: Fn() -> Fut,
    Fut: Future<Output = Result<(), String>>,
{
    let mut kept = kept.lock().await;
    if let Some((at, found)) = &*kept
        && at.elapsed() < KEPT
    {
        return found.clone();
    }
    let found = ready().await;
    let is_told = kept.as_ref().is_some_and(|(_, last)| *last == found);
    if let Err(reason) = &found
        && !is_told
    {
        tracing::warn!(reason, "not ready");
    }
    *kept = Some((Instant::now(), found.clone()));
    found
}

fn readiness(audience: Audience, ready: Result<(), String>) -> Response {
    match ready {
        Ok(()) => "ready\n".into_response(),
        Err(reason) => {
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
    let response = client::fetch(socket, request, 4096).await.map_err(|error| match error {
        client::ClientError::Connect { .. } => format!(
            "{}: is the server running? --config FILE names the settings of another",
            crate::telemetry::chain(&error)
        ),
        error => crate::telemetry::chain(&error),
    })?;
    if response.status().is_success() {
        Ok(())
    } else {
        // Whoever listens there says it: it is one line, whatever is in it.
        Err(shown(String::from_utf8_lossy(response.body()).trim()).to_string())
    }
}
