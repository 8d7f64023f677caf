//! Doing a job, and the route by which one is asked for.

use std::convert::Infallible;

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use bytes::Bytes;
use futures_util::StreamExt;

use super::{
    JOBS_PATH, Job,
    event::{Outcome, tell},
};
use crate::{
    maintenance,
    registry::{
        Error, Registry,
        event::{Event, Events},
    },
};

impl Job {
    /// Does the job, tells `events` its steps, and gives how it ended.
    ///
    /// # Errors
    /// What keeps it from its end.
    pub async fn run(self, registry: Registry, events: Events) -> Result<Outcome, Error> {
        let events = &events;
        Ok(match self {
            Self::Collect { dry_run: true } => {
                Outcome::Collected(registry.collector.collect_dry(events).await?)
            }
            Self::Collect { dry_run: false } => {
                registry.refuse_when_read_only()?;
                let summary = registry.collector.collect(events).await?;
                maintenance::note_collection(&summary);
                Outcome::Collected(summary)
            }
            Self::Verify { options } => {
                let summary = registry.verifier.verify(options, events).await?;
                maintenance::note_verification(&summary);
                Outcome::Verified(summary)
            }
            Self::Delete { repository, reference, force } => {
                let reference = reference.as_ref();
                let deletion = registry.deletion.delete(&repository, reference, force, events);
                Outcome::Deleted(deletion.await?)
            }
            Self::Hold => {
                let _hold = registry.collector.hold().await;
                events.say(Event::Held).await?;
                events.abandoned().await;
                return Err(Error::Abandoned);
            }
            Self::ReadOnly { on } => {
                registry.set_read_only(on);
                tracing::info!(read_only = on, "switched over the control socket");
                Outcome::ReadOnly { on }
            }
        })
    }
}

/// The routes of the control socket besides health. Whoever can open the socket may use them: its
/// file is the server's user's alone.
pub(crate) fn routes(registry: Registry) -> Router {
    Router::new().route(JOBS_PATH, post(start)).with_state(registry)
}

async fn start(State(registry): State<Registry>, job: Bytes) -> Response {
    let job: Job = match serde_json::from_slice(&job) {
        Ok(job) => job,
        Err(error) => {
            let why = Body::from(format!("no such job: {error}\n"));
            return (StatusCode::BAD_REQUEST, why).into_response();
        }
    };
    let told = tell(|events| job.run(registry, events));
    let lines = told.0.map(|event| {
        let mut line = serde_json::to_vec(&event).unwrap_or_default();
        line.push(b'\n');
        Ok::<_, Infallible>(Bytes::from(line))
    });
    let headers = [(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"))];
    (headers, Body::from_stream(lines)).into_response()
}
