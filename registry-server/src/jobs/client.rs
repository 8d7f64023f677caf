//! Asking a running server to do a job.

use std::path::Path;

use axum::{
    body::Body,
    http::{HeaderValue, Method, Request, Uri, header},
};
use berth_shared::client::{self, ClientError};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::mpsc;

use super::{
    JOBS_PATH, Job,
    event::{Outcome, QUEUE, Told},
};

/// The longest event, as one line.
const LINE_BYTES_MAX: usize = 1024 * 1024;

impl Job {
    /// Has the server behind `socket` do the job. The channel ends when the job has; dropping it
    /// stops the job.
    ///
    /// # Errors
    /// When nobody listens on the socket.
    pub async fn ask(&self, socket: &Path) -> Result<mpsc::Receiver<Told<Outcome>>, ClientError> {
        let body = serde_json::to_vec(self).unwrap_or_default();
        let mut request = Request::new(Body::from(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::from_static(JOBS_PATH);
        let headers = request.headers_mut();
        headers.insert(header::HOST, HeaderValue::from_static("localhost"));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let answer = client::send(socket, request).await?;
        let (teller, told) = mpsc::channel(QUEUE);
        tokio::spawn(async move {
            let status = answer.status();
            let mut lines = Lines::new(answer.into_body());
            // Whoever listens may leave while nothing is told; the server sees that we hang up.
            loop {
                let line = tokio::select! {
                    line = lines.next() => line,
                    () = teller.closed() => return,
                };
                let Some(line) = line else { return };
                let event = serde_json::from_slice(&line).unwrap_or_else(|_| Told::Failed {
                    message: format!("the server answers {status}: is it of another version?"),
                });
                if teller.send(event).await.is_err() {
                    return;
                }
            }
        });
        Ok(told)
    }
}

/// Cuts a body into lines.
struct Lines {
    body: Incoming,
    rest: Vec<u8>,
}

impl Lines {
    fn new(body: Incoming) -> Self {
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
