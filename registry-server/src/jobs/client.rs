//! Asking a running server to do a job.

use std::{io, path::Path};

use axum::{
    body::Body,
    http::{HeaderValue, Method, Request, Uri, header},
};
use berth_shared::client::{self, ClientError};
use futures_util::{StreamExt, TryStreamExt};
use http_body_util::BodyExt;
use tokio::sync::mpsc;
use tokio_util::{
    codec::{FramedRead, LinesCodec, LinesCodecError},
    io::StreamReader,
};

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
            let body = answer.into_body().into_data_stream().map_err(io::Error::other);
            let codec = LinesCodec::new_with_max_length(LINE_BYTES_MAX);
            let mut lines = FramedRead::new(StreamReader::new(body), codec);
            let tell = async {
                while let Some(line) = lines.next().await {
                    if matches!(line, Err(LinesCodecError::Io(_))) {
                        return;
                    }
                    let event = serde_json::from_str(&line.unwrap_or_default());
                    let event = event.unwrap_or_else(|_| Told::Failed {
                        message: format!("the server answers {status}: is it of another version?"),
                    });
                    let _ = teller.send(event).await;
                }
            };
            // Whoever listens may leave while nothing is told; the server sees that we hang up.
            tokio::select! {
                () = tell => {}
                () = teller.closed() => {}
            }
        });
        Ok(told)
    }
}
