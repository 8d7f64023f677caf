//! A small HTTP client for the private Unix sockets.

use std::{
    fmt, io,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Limited};
use hyper::{
    body::Incoming,
    client::conn::http1::{SendRequest, handshake},
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::UnixStream,
    sync::Semaphore,
    time::{Instant, timeout},
};

/// How long the head of an answer may take. The token endpoint queues for a password check.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Requests of a pool that may be under way at once. The server's listener has room for twice as
/// many, so that whoever speaks to it beside the pool is never kept waiting by it.
const UNDER_WAY_MAX: usize = 512;

/// Connections that a pool keeps while nobody needs them.
const IDLE_MAX: usize = 64;

/// How long a pool keeps one: well below the time after which the server closes it, so that no
/// request meets a connection that is being closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

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
    let mut sender = connect(socket).await?;
    timeout(ANSWER_TIMEOUT, sender.send_request(request))
        .await
        .map_err(|_| ClientError::Timeout)?
        .map_err(ClientError::from)
}

async fn connect(socket: &Path) -> Result<SendRequest<Body>, ClientError> {
    let stream = UnixStream::connect(socket)
        .await
        .map_err(|source| ClientError::Connect { path: socket.display().to_string(), source })?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    // Ends when the sender is gone and the answer's body has been read or dropped; its error
    // reaches the caller there.
    tokio::spawn(connection);
    Ok(sender)
}

/// Connections to the server behind one socket, kept from one request to the next: making one costs
/// as much as a token. Clones share them.
#[derive(Clone)]
pub struct Pool {
    socket: Arc<Path>,
    idle: Arc<Mutex<Vec<Idle>>>,
    room: Arc<Semaphore>,
}

/// A connection that answered, and whose answer may still be on its way.
struct Idle {
    sender: SendRequest<Body>,
    since: Instant,
}

impl Pool {
    /// A pool without connections.
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        let room = Arc::new(Semaphore::new(UNDER_WAY_MAX));
        Self { socket: socket.into(), idle: Arc::default(), room }
    }

    /// Sends a request and reads an answer of at most `bytes_max` bytes whole. The request's body
    /// should be there whole: a connection is held until it has been sent. While as many requests
    /// as may be are under way, it waits.
    ///
    /// # Errors
    /// As [`fetch`].
    pub async fn fetch(
        &self,
        request: Request<Body>,
        bytes_max: usize,
    ) -> Result<Response<Bytes>, ClientError> {
        let exchange = async {
            // It is never closed.
            let _place = self.room.acquire().await;
            read(self.send(request).await?, bytes_max).await
        };
        timeout(ANSWER_TIMEOUT, exchange).await.map_err(|_| ClientError::Timeout)?
    }

    async fn send(&self, mut request: Request<Body>) -> Result<Response<Incoming>, ClientError> {
        while let Some(mut sender) = self.take() {
            match sender.try_send_request(request).await {
                Ok(response) => return Ok(self.keep(sender, response)),
                // It was closed meanwhile: nothing of the request was sent.
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(error.into_error().into()),
                },
            }
        }
        let mut sender = connect(&self.socket).await?;
        let response = sender.send_request(request).await?;
        Ok(self.keep(sender, response))
    }

    /// A connection whose last answer has been read to its end.
    fn take(&self) -> Option<SendRequest<Body>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|idle| !idle.sender.is_closed() && idle.since.elapsed() < IDLE_TIMEOUT);
        let ready = idle.iter().position(|idle| idle.sender.is_ready())?;
        Some(idle.swap_remove(ready).sender)
    }

    fn keep(&self, sender: SendRequest<Body>, response: Response<Incoming>) -> Response<Incoming> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_MAX {
            idle.push(Idle { sender, since: Instant::now() });
        }
        response
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("socket", &self.socket).finish_non_exhaustive()
    }
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
    let response = send(socket, request).await?;
    timeout(ANSWER_TIMEOUT, read(response, bytes_max)).await.map_err(|_| ClientError::Timeout)?
}

async fn read(
    response: Response<Incoming>,
    bytes_max: usize,
) -> Result<Response<Bytes>, ClientError> {
    let (parts, body) = response.into_parts();
    let body = Limited::new(body, bytes_max).collect().await.map_err(ClientError::Body)?;
    Ok(Response::from_parts(parts, body.to_bytes()))
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use axum::{Router, routing::any};
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::serve::{Limits, Listener, Name, serve};

    /// Serves on `socket` until the token is cancelled.
    fn server(socket: &Path, shutdown: CancellationToken) -> impl Future<Output = ()> + use<> {
        let listener = Listener::unix(socket, None).unwrap();
        let routes = Router::new().route("/", any(|body: String| async move { body }));
        let name = Name { server: "test", listener: "private" };
        serve(listener, name, routes, Limits::default(), shutdown)
    }

    fn request(body: &str) -> Request<Body> {
        Request::post("/").header("host", "test").body(Body::from(body.to_owned())).unwrap()
    }

    async fn echo(pool: &Pool, body: &str) -> Result<Bytes, ClientError> {
        Ok(pool.fetch(request(body), 1024).await?.into_body())
    }

    #[tokio::test]
    async fn a_pool_uses_connections_again_and_never_while_an_answer_is_on_its_way() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("socket");
        let _server = tokio::spawn(server(&socket, CancellationToken::new()));
        let pool = Pool::new(&socket);
        for n in 0..20 {
            assert_eq!(echo(&pool, &n.to_string()).await.unwrap(), n.to_string());
            // The connection's own task notes the end of the answer.
            tokio::task::yield_now().await;
        }
        assert!(pool.idle.lock().unwrap().len() < 20, "not one each");
        // Answers that nobody has read yet each hold their connection.
        let large = "x".repeat(1024 * 1024);
        let unread =
            [pool.send(request(&large)).await.unwrap(), pool.send(request(&large)).await.unwrap()];
        for answer in unread {
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(body.len(), large.len());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pool_never_fills_the_servers_listener() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("socket");
        // Nobody answers.
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        let pool = Pool::new(&socket);
        let most = u32::try_from(UNDER_WAY_MAX).unwrap();
        let places = pool.room.acquire_many(most).await.unwrap();
        assert!(matches!(echo(&pool, "a").await, Err(ClientError::Timeout)));
        let connected = std::future::poll_fn(|cx| match listener.poll_accept(cx) {
            Poll::Ready(_) => Poll::Ready(true),
            Poll::Pending => Poll::Ready(false),
        });
        assert!(!connected.await, "it waited for its place without a connection");
        drop(places);
        assert!(UNDER_WAY_MAX * 2 <= Limits::default().connections_max);
    }

    #[tokio::test]
    async fn a_pool_goes_on_with_a_server_that_was_started_again() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("socket");
        let pool = Pool::new(&socket);
        for round in 0..3 {
            let shutdown = CancellationToken::new();
            let running = tokio::spawn(server(&socket, shutdown.clone()));
            let (a, b) = tokio::join!(echo(&pool, "a"), echo(&pool, "b"));
            assert_eq!((a.unwrap(), b.unwrap()), (Bytes::from("a"), Bytes::from("b")), "{round}");
            shutdown.cancel();
            running.await.unwrap();
            assert!(matches!(echo(&pool, "a").await, Err(ClientError::Connect { .. })));
        }
    }
}
