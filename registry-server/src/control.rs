//! The control socket: the jobs that a running server does for whoever may open it.
//!
//! A job is one JSON object, `POST`ed to [`JOBS_PATH`]; the answer is a line of JSON per [`Event`].
//! When the asker hangs up the job stops at its next step.

use std::path::Path;

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{HeaderValue, Request, Response, StatusCode, header},
    routing::post,
};
use berth_shared::{
    client::{self, ClientError},
    name::RepositoryName,
    reference::Reference,
    telemetry::chain,
};
use bytes::Bytes;
use futures_util::{future::BoxFuture, stream};
use http_body_util::BodyExt;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::registry::{
    Error, Registry,
    event::{Event, Events},
    verify,
};

/// Where jobs are sent.
pub const JOBS_PATH: &str = "/jobs";

/// The longest event, as one line.
const LINE_BYTES_MAX: usize = 1024 * 1024;

/// What a registry can be asked to do by whoever administers it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "job", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Job {
    /// Remove what nothing keeps alive.
    Collect {
        /// Only tell what would go.
        dry_run: bool,
    },
    /// Hash everything that is stored.
    Verify {
        /// How.
        options: verify::Options,
    },
    /// Delete a tag, a manifest, or a repository.
    Delete {
        /// The repository.
        repository: String,
        /// Tag or digest; without one the whole repository.
        reference: Option<String>,
        /// Whether indexes may break that name the manifest.
        #[serde(default)]
        force: bool,
    },
    /// Delete no stored object until the asker hangs up.
    Hold,
    /// Take no pushes, or take them again.
    ReadOnly {
        /// Whether to take none.
        on: bool,
    },
}

impl Job {
    /// Does the job, and tells `events` how it goes. The last event says how it ended.
    pub fn run(self, registry: Registry, events: Events) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            if let Err(error) = self.attempt(&registry, &events).await {
                // When nobody listens there is nobody to tell.
                let _ = events.say(Event::Failed { message: chain(&error) }).await;
            }
        })
    }

    async fn attempt(self, registry: &Registry, events: &Events) -> Result<(), Error> {
        match self {
            Self::Collect { dry_run: true } => {
                let summary = registry.collect_dry(events).await?;
                events.say(Event::Collected(summary)).await
            }
            Self::Collect { dry_run: false } => {
                if registry.is_read_only() {
                    return Err(Error::ReadOnly);
                }
                let summary = registry.collect(events).await?;
                crate::maintenance::note_collection(&summary);
                events.say(Event::Collected(summary)).await
            }
            Self::Verify { options } => {
                let summary = registry.verify(options, events).await?;
                crate::maintenance::note_verification(&summary);
                events.say(Event::Verified(summary)).await
            }
            Self::Delete { repository, reference, force } => {
                let repository: RepositoryName =
                    repository.parse().map_err(|_| Error::NameUnknown)?;
                let reference: Option<Reference> = reference
                    .map(|reference| reference.parse().map_err(|_| Error::ManifestUnknown))
                    .transpose()?;
                let deleted =
                    registry.delete(&repository, reference.as_ref(), force, events).await?;
                events.say(deleted).await
            }
            Self::Hold => {
                let _hold = registry.hold().await;
                events.say(Event::Held).await?;
                events.abandoned().await;
                Ok(())
            }
            Self::ReadOnly { on } => {
                registry.set_read_only(on);
                tracing::info!(read_only = on, "switched over the control socket");
                events.say(Event::ReadOnly { on }).await
            }
        }
    }

    /// Has the server behind `socket` do the job. The channel ends when the job has; dropping it
    /// stops the job.
    ///
    /// # Errors
    /// When nobody listens on the socket.
    pub async fn ask(&self, socket: &Path) -> Result<mpsc::Receiver<Event>, ClientError> {
        let body = serde_json::to_vec(self).unwrap_or_default();
        let mut request = Request::new(Body::from(body));
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = http::Uri::from_static(JOBS_PATH);
        let headers = request.headers_mut();
        headers.insert(header::HOST, HeaderValue::from_static("localhost"));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let answer = client::send(socket, request).await?;
        let (events, received) = Events::channel();
        tokio::spawn(async move {
            let status = answer.status();
            let mut lines = Lines::new(answer.into_body());
            // Whoever listens may leave while nothing is told; the server sees that we hang up.
            loop {
                let line = tokio::select! {
                    line = lines.next() => line,
                    () = events.abandoned() => return,
                };
                let Some(line) = line else { return };
                let event = serde_json::from_slice(&line).unwrap_or_else(|_| Event::Failed {
                    message: format!("the server answers {status}: is it of another version?"),
                });
                if events.say(event).await.is_err() {
                    return;
                }
            }
        });
        Ok(received)
    }
}

/// The routes of the control socket besides health. Whoever can open the socket may use them: its
/// file is the server's user's alone.
pub(crate) fn routes(registry: Registry) -> Router {
    Router::new().route(JOBS_PATH, post(start)).with_state(registry)
}

async fn start(State(registry): State<Registry>, job: Bytes) -> Response<Body> {
    let job: Job = match serde_json::from_slice(&job) {
        Ok(job) => job,
        Err(error) => {
            let mut response = Response::new(Body::from(format!("no such job: {error}\n")));
            *response.status_mut() = StatusCode::BAD_REQUEST;
            return response;
        }
    };
    let (events, received) = Events::channel();
    tokio::spawn(job.run(registry, events));
    let lines = stream::unfold(received, |mut received| async move {
        let event = received.recv().await?;
        let mut line = serde_json::to_vec(&event).unwrap_or_default();
        line.push(b'\n');
        Some((Ok::<_, std::convert::Infallible>(Bytes::from(line)), received))
    });
    let mut response = Response::new(Body::from_stream(lines));
    let lines = HeaderValue::from_static("application/x-ndjson");
    response.headers_mut().insert(header::CONTENT_TYPE, lines);
    response
}

/// Cuts a body into lines.
struct Lines {
    body: hyper::body::Incoming,
    rest: Vec<u8>,
}

impl Lines {
    fn new(body: hyper::body::Incoming) -> Self {
        Self { body, rest: Vec::new() }
    }

    async fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let rest = self.rest.split_off(end + 1);
                let mut line = std::mem::replace(&mut self.rest, rest);
                line.pop();
                return Some(line);
            }
            match self.body.frame().await {
                Some(Ok(frame)) if self.rest.len() < LINE_BYTES_MAX => {
                    if let Ok(data) = frame.into_data() {
                        self.rest.extend_from_slice(&data);
                    }
                }
                _ => return Some(std::mem::take(&mut self.rest)).filter(|rest| !rest.is_empty()),
            }
        }
    }
}
