//! One connection: handshake, then HTTP until the client leaves, idles, stalls, or the server
//! stops.

use std::{pin::pin, sync::Arc, time::Duration};

use axum::{Router, body::Body};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::{
    Limits, PeerAddress,
    progress::{Progress, Watched},
    tls::Tls,
};

/// The longest block of request headers, in bytes; more gets 431.
const HEADER_BYTES_MAX: u32 = 64 * 1024;

/// How much a client may send on one HTTP/2 stream, and on one connection, before the server has
/// read it. This bounds what an HTTP/2 connection can make the server hold.
const HTTP2_WINDOW_BYTES: u32 = 1024 * 1024;

/// The largest HTTP/2 frame a client may send. The protocol's own 16 KiB costs a client a system
/// call each; larger frames bring an upload close to HTTP/1.1.
const HTTP2_FRAME_BYTES: u32 = 256 * 1024;

/// Requests at once on one HTTP/2 connection.
const HTTP2_STREAMS_MAX: u32 = 100;

/// How often a connection is looked at for idling and stalling.
const WATCH_INTERVAL: Duration = Duration::from_secs(5);

/// A connection as it was accepted.
pub(super) enum Stream {
    Tcp(TcpStream, Option<Arc<Tls>>),
    Unix(UnixStream),
}

/// Serves one connection to its end.
pub(super) async fn serve_connection(
    stream: Stream,
    peer: PeerAddress,
    router: Router,
    limits: Limits,
    shutdown: CancellationToken,
) {
    match stream {
        Stream::Unix(stream) => serve_http(stream, peer, router, limits, shutdown).await,
        Stream::Tcp(stream, None) => serve_http(stream, peer, router, limits, shutdown).await,
        Stream::Tcp(stream, Some(tls)) => {
            // No queue for handshakes: whoever stalled in one would hold up the others.
            match timeout(limits.handshake_timeout, tls.acceptor().accept(stream)).await {
                Ok(Ok(stream)) => serve_http(stream, peer, router, limits, shutdown).await,
                Ok(Err(error)) => tracing::debug!(%error, peer = ?peer.0, "TLS handshake failed"),
                Err(_) => tracing::debug!(peer = ?peer.0, "TLS handshake took too long"),
            }
        }
    }
}

async fn serve_http<S>(
    stream: S,
    peer: PeerAddress,
    router: Router,
    limits: Limits,
    shutdown: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let progress = Arc::new(Progress::new());
    let builder = http_builder(limits.idle_timeout);
    let in_flight = Arc::clone(&progress);
    let service = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(peer);
        let router = router.clone();
        let flight = in_flight.begin_request();
        async move {
            let response = router.oneshot(request.map(Body::new)).await;
            response.map(|response| response.map(|body| flight.until_end_of(body)))
        }
    });
    let io = TokioIo::new(Watched::new(stream, Arc::clone(&progress)));
    let mut connection = pin!(builder.serve_connection(io, service));
    let mut stopping = pin!(shutdown.cancelled());
    let mut watch = tokio::time::interval(WATCH_INTERVAL);
    let mut finishing = false;
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(error, peer = ?peer.0, "connection broke");
                }
                return;
            }
            () = stopping.as_mut(), if !finishing => {
                finishing = true;
                connection.as_mut().graceful_shutdown();
            }
            _ = watch.tick() => {
                if progress.write_stalled_for() > limits.write_stall_timeout {
                    tracing::debug!(peer = ?peer.0, "client stopped reading");
                    return;
                }
                if !finishing && progress.idle_for() > limits.idle_timeout {
                    finishing = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }
}

fn http_builder(idle: Duration) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(idle)
        .max_buf_size(HEADER_BYTES_MAX as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(HTTP2_WINDOW_BYTES)
        .initial_connection_window_size(HTTP2_WINDOW_BYTES)
        .max_frame_size(HTTP2_FRAME_BYTES)
        .max_concurrent_streams(HTTP2_STREAMS_MAX)
        .max_header_list_size(HEADER_BYTES_MAX);
    builder
}
