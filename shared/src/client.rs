//! A small HTTP client for the private Unix sockets.

use std::{io, path::Path, time::Duration};

use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::{net::UnixStream, time::timeout};

/// How long the head of an answer may take. The token endpoint queues for a password check.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// The server behind the socket gave no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens on the socket.
    #[error("connecting to {path}")]
    Connect {
        /// The socket.
        path: String,
        /// Why not.
        source: io::Error,
    },
    /// The exchange broke.
    #[error("talking to the server behind the socket")]
    Exchange(#[from] hyper::Error),
    /// No answer came in time.
    #[error("no answer within {} s", ANSWER_TIMEOUT.as_secs())]
    Timeout,
    /// The body was cut off or too long.
    #[error("reading the answer's body")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Sends one request over a connection of its own and gives the answer with its body still to be
/// read.
///
/// # Errors
/// When nobody listens, the exchange breaks, or the head of the answer takes too long.
pub async fn send(
    socket: &Path,
    request: Request<Body>,
) -> Result<Response<Incoming>, ClientError> {
    let stream = UnixStream::connect(socket)
        .await
        .map_err(|source| ClientError::Connect { path: socket.display().to_string(), source })?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // Ends when the answer's body has been read or dropped; its error reaches the caller there.
    tokio::spawn(connection);
    timeout(ANSWER_TIMEOUT, sender.send_request(request))
        .await
        .map_err(|_| ClientError::Timeout)?
        .map_err(ClientError::from)
}

/// Sends a request and reads an answer of at most `bytes_max` bytes whole.
///
/// # Errors
/// As [`send`], and when the body is cut off or longer than allowed.
pub async fn fetch(
    socket: &Path,
    request: Request<Body>,
    bytes_max: usize,
) -> Result<Response<Bytes>, ClientError> {
    let (parts, body) = send(socket, request).await?.into_parts();
    let body = timeout(ANSWER_TIMEOUT, Limited::new(body, bytes_max).collect())
        .await
        .map_err(|_| ClientError::Timeout)?
        .map_err(ClientError::Body)?;
    Ok(Response::from_parts(parts, body.to_bytes()))
}
