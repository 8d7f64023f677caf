//! A small HTTP client for the private Unix sockets, and for whatever else is connected to by one way.

use std::{error::Error, io, path::Path, sync::Arc, time::Duration};

use axum::body::Body;
use bytes::Bytes;
use http::{
    Request, Response, Uri,
    uri::{Authority, Scheme},
};
use http_body_util::{BodyExt, Limited};
use hyper::{
    body::Incoming,
    rt::{Read, Write},
};
use hyper_util::{
    client::legacy::{
        self, Client,
        connect::{Connect, Connection},
    },
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use tokio::{net::UnixStream, sync::Semaphore, time::timeout};
use tower::{BoxError, Service, service_fn, util::BoxCloneSyncService};

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

/// The server gave no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens there, or nobody who may be talked to. Nothing of the request was sent.
    #[error("connecting to {place}")]
    Connect {
        /// The socket, or the address.
        place: String,
        /// Why not.
        source: io::Error,
    },
    /// Whoever listens there shows a certificate that is not taken. Nothing of the request was sent.
    #[error("the certificate of {place} is not taken: {reason}")]
    Untrusted {
        /// The address.
        place: String,
        /// Why not.
        reason: rustls::Error,
    },
    /// The exchange broke.
    #[error("talking to the server at {place}")]
    Exchange {
        /// The socket, or the address.
        place: String,
        /// How.
        source: legacy::Error,
    },
    /// No answer came in time.
    #[error("no answer within {} s", ANSWER_TIMEOUT.as_secs())]
    Timeout,
    /// The head of an answer that was wanted sooner did not come.
    #[error("no answer from {place} within {} s", after.as_secs())]
    Late {
        /// The socket, or the address.
        place: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// The body was cut off or too long.
    #[error("reading the answer's body")]
    Body(#[source] Box<dyn Error + Send + Sync>),
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
    timeout(ANSWER_TIMEOUT, Pool::keeping(0, socket).send(request))
        .await
        .map_err(|_| ClientError::Timeout)?
}

/// Connects to the one server, whatever is asked for.
pub type Connector<S> = BoxCloneSyncService<Uri, S, BoxError>;

/// Connections to one server, over streams such as `S`, kept from one request to the next: making one
/// costs as much as a token. Clones share them.
pub struct Pool<S = TokioIo<UnixStream>> {
    /// Where it is, for people.
    place: Arc<str>,
    /// What connections are told by, and made to.
    scheme: Scheme,
    authority: Authority,
    client: Client<Connector<S>, Body>,
    room: Arc<Semaphore>,
}

impl<S> Clone for Pool<S> {
    fn clone(&self) -> Self {
        Self {
            place: Arc::clone(&self.place),
            scheme: self.scheme.clone(),
            authority: self.authority.clone(),
            client: self.client.clone(),
            room: Arc::clone(&self.room),
        }
    }
}

impl Pool {
    /// A pool without connections, of the server behind a Unix socket.
    pub fn new(socket: &Path) -> Self {
        Self::keeping(IDLE_MAX, socket)
    }

    fn keeping(idle_max: usize, socket: &Path) -> Self {
        let (place, path) = (socket.display().to_string(), Arc::<Path>::from(socket));
        let connect = move |_: Uri| {
            let path = Arc::clone(&path);
            async move { UnixStream::connect(path).await.map(TokioIo::new).map_err(BoxError::from) }
        };
        let authority = Authority::from_static("localhost");
        Self::of(
            BoxCloneSyncService::new(service_fn(connect)),
            place,
            Scheme::HTTP,
            authority,
            idle_max,
        )
    }
}

impl<S> Pool<S>
where
    S: Read + Write + Connection + Send + Unpin + 'static,
    Connector<S>: Connect + Service<Uri, Response = S> + Clone + Send + Sync + 'static,
{
    /// A pool without connections, which `connector` makes to the server at `place`: over TLS, as
    /// `authority`.
    pub fn over_tls(connector: Connector<S>, place: &str, authority: Authority) -> Self {
        Self::of(connector, place.to_owned(), Scheme::HTTPS, authority, IDLE_MAX)
    }

    fn of(
        connector: Connector<S>,
        place: String,
        scheme: Scheme,
        authority: Authority,
        idle_max: usize,
    ) -> Self {
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(idle_max)
            .build(connector);
        let room = Arc::new(Semaphore::new(UNDER_WAY_MAX));
        Self { place: place.into(), scheme, authority, client, room }
    }

    /// Where the server is, for people.
    #[must_use]
    pub fn place(&self) -> &str {
        &self.place
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
        self.fetch_with_head_in(Duration::MAX, request, bytes_max).await
    }

    /// The same, where the head of the answer may take no longer than this.
    ///
    /// # Errors
    /// As [`fetch`].
    pub async fn fetch_with_head_in(
        &self,
        most: Duration,
        request: Request<Body>,
        bytes_max: usize,
    ) -> Result<Response<Bytes>, ClientError> {
        let exchange = async {
            let head = async {
                // It is never closed.
                let place = self.room.acquire().await;
                (self.send(request).await, place)
            };
            let late = |_| ClientError::Late { place: self.place.to_string(), after: most };
            let (answer, _place) = timeout(most, head).await.map_err(late)?;
            read(answer?, bytes_max).await
        };
        timeout(ANSWER_TIMEOUT, exchange).await.map_err(|_| ClientError::Timeout)?
    }

    async fn send(&self, mut request: Request<Body>) -> Result<Response<Incoming>, ClientError> {
        // The pool wants a host to tell connections by; what is sent is the path alone.
        let mut parts = request.uri().clone().into_parts();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(self.authority.clone());
        if let Ok(absolute) = Uri::from_parts(parts) {
            *request.uri_mut() = absolute;
        }
        self.client.request(request).await.map_err(|error| self.failed(error))
    }

    fn failed(&self, error: legacy::Error) -> ClientError {
        let refused = error.source().and_then(|source| source.downcast_ref::<io::Error>());
        match refused.filter(|_| error.is_connect()) {
            Some(refused) => match tls_error(refused) {
                Some(reason) => {
                    ClientError::Untrusted { place: self.place.to_string(), reason: reason.clone() }
                }
                None => ClientError::Connect {
                    place: self.place.to_string(),
                    source: io::Error::new(refused.kind(), refused.to_string()),
                },
            },
            None => ClientError::Exchange { place: self.place.to_string(), source: error },
        }
    }
}

/// What is wrong with the certificate, if that is why there is no connection.
fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    let inner = error.get_ref()?;
    match inner.downcast_ref::<rustls::Error>() {
        Some(error @ rustls::Error::InvalidCertificate(_)) => Some(error),
        Some(_) => None,
        None => inner.downcast_ref::<io::Error>().and_then(tls_error),
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
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        task::Poll,
    };

    use axum::{Router, routing::any, serve::ListenerExt};
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::serve::{Limits, Listener, Name, serve};

    /// Serves on `socket` until the token is cancelled.
    fn server(socket: &Path, shutdown: CancellationToken) -> impl Future<Output = ()> + use<> {
        let listener = Listener::unix(socket, None).unwrap();
        let name = Name { server: "test", listener: "private" };
        serve(listener, name, routes(), Limits::default(), shutdown)
    }

    fn routes() -> Router {
        Router::new().route("/", any(|body: String| async move { body }))
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
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&accepted);
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        let listener = listener.tap_io(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        tokio::spawn(axum::serve(listener, routes()).into_future());
        let pool = Pool::new(&socket);
        for n in 0..20 {
            assert_eq!(echo(&pool, &n.to_string()).await.unwrap(), n.to_string());
            // The connection's own task notes the end of the answer.
            tokio::task::yield_now().await;
        }
        assert!(accepted.load(Ordering::Relaxed) < 20, "not one each");
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
