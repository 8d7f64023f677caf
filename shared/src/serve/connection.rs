//! One connection: handshake, then HTTP until the client leaves, idles, stalls, makes room for
//! another, or the server stops.
//!
//! Whatever the reason, the client is told first and the connection ends a little later, whether or
//! not the client agrees.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::Router;
use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, BufReader},
    net::{TcpStream, UnixStream},
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    DRAIN_TIMEOUT, Limits, PeerAddress,
    admission::Admission,
    budget::Share,
    metrics::Connections,
    outbox::Outbox,
    places::Place,
    plain,
    progress::Look,
    refusals,
    tls::{HTTP2, Tls},
    watched::Watched,
};

/// The longest block of request headers or trailers over HTTP/2, in bytes, where each counts 32 more
/// (RFC 9113 §6.5.2); more gets 431. A connection can have a hundred of them at once.
const HTTP2_HEADER_BYTES_MAX: u32 = 16 * 1024;

/// How much a client may send on one HTTP/2 stream, and on one connection, before the server has
/// read it. This bounds what an HTTP/2 connection can make the server hold.
const HTTP2_WINDOW_BYTES: u32 = 1024 * 1024;

/// The largest HTTP/2 frame a client may send. The protocol's own 16 KiB costs a client a system
/// call each; larger frames bring an upload close to HTTP/1.1.
const HTTP2_FRAME_BYTES: u32 = 256 * 1024;

/// How much of what a client sends over TLS is taken from the system at once. rustls asks for 4 KiB at
/// a time; measured for a push of a large blob: 0.6 times the processor's time.
const TLS_READ_BYTES: usize = 32 * 1024;

/// Requests at once on one HTTP/2 connection.
const HTTP2_STREAMS_MAX: u32 = 100;

/// The shortest between two looks at a connection.
const LOOK_INTERVAL_MIN: Duration = Duration::from_millis(50);

/// The longest between two looks at a connection.
const LOOK_INTERVAL_MAX: Duration = Duration::from_secs(5);

/// The longest that a client has to leave that was told to.
const LEAVE_TIMEOUT_MAX: Duration = Duration::from_secs(5);

/// A connection as it was accepted.
pub(super) enum Stream {
    Tcp(TcpStream, Option<Arc<Tls>>),
    Unix(UnixStream),
}

/// What a connection is served with.
pub(super) struct Terms {
    pub(super) peer: PeerAddress,
    pub(super) router: Router,
    pub(super) limits: Limits,
    /// What the requests of its network may take.
    pub(super) requests: Share,
    pub(super) counted: Connections,
    pub(super) shutdown: CancellationToken,
}

/// Serves one connection to its end.
pub(super) async fn serve_connection(stream: Stream, place: Place, terms: Terms) {
    match stream {
        Stream::Unix(stream) => {
            serve_http(watched(stream, &place), |_| (), true, &place, terms).await;
        }
        Stream::Tcp(stream, None) => {
            serve_http(watched(stream, &place), |_| (), true, &place, terms).await;
        }
        Stream::Tcp(stream, Some(tls)) => {
            let peer = terms.peer.0;
            // No queue for handshakes: whoever stalled in one would hold up the others.
            let handshake = async {
                if plain::is_plain(&stream).await {
                    plain::refuse(stream, tls.origin()).await;
                    return Ok(None);
                }
                let stream = BufReader::with_capacity(TLS_READ_BYTES, watched(stream, &place));
                tls.acceptor().accept(stream).await.map(Some)
            };
            let shaken = timeout(terms.limits.handshake_timeout, handshake);
            tokio::select! {
                shaken = shaken => match shaken {
                    Ok(Ok(Some(stream))) if stream.get_ref().1.alpn_protocol() == Some(HTTP2) => {
                        let outbox = Outbox::new(stream);
                        let send = |cx: &mut Context<'_>| outbox.send(cx);
                        serve_http(outbox.clone(), send, true, &place, terms).await;
                    }
                    Ok(Ok(Some(stream))) => {
                        serve_http(stream, |_| (), tls.has_http2(), &place, terms).await;
                    }
                    Ok(Ok(None)) => tracing::debug!(?peer, "plain HTTP on the TLS port"),
                    Ok(Err(error)) => tracing::debug!(%error, ?peer, "TLS handshake failed"),
                    Err(_) => tracing::debug!(?peer, "TLS handshake took too long"),
                },
                () = place.leave.cancelled() => {
                    tracing::debug!(?peer, "TLS handshake ended to make room");
                    terms.counted.ended("room");
                }
            }
        }
    }
}

/// Progress is seen where the bytes leave, below TLS and its buffers.
fn watched<S>(stream: S, place: &Place) -> Watched<S> {
    Watched::new(stream, Arc::clone(&place.progress))
}

/// Serves a stream to its end, and has what was written to it sent by `send` whenever there is no more
/// for now.
async fn serve_http<S>(
    stream: S,
    send: impl Fn(&mut Context<'_>),
    has_http2: bool,
    place: &Place,
    terms: Terms,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Terms { peer, router, limits, requests, counted, shutdown } = terms;
    let admission = Admission {
        peer,
        router,
        requests,
        progress: Arc::clone(&place.progress),
        body_rate: limits.body_rate(),
    };
    let service = service_fn(move |request| admission.serve(request));
    let builder = http_builder(&limits);
    let builder = if has_http2 { builder } else { builder.http1_only() };
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let mut stopping = pin!(shutdown.cancelled());
    let mut looks = tokio::time::interval(limits.look_interval());
    let mut end: Option<End> = None;
    loop {
        let gone_on = poll_fn(|cx| go_on(connection.as_mut(), &send, cx));
        tokio::select! {
            ended = gone_on => {
                if let Err(error) = ended {
                    tracing::debug!(error, peer = ?peer.0, "connection broke");
                }
                return;
            }
            () = stopping.as_mut(), if End::is_to_come(end, Why::Stopping) => {
                end = Some(End::after(DRAIN_TIMEOUT, Why::Stopping));
                connection.as_mut().graceful_shutdown();
            }
            () = place.leave.cancelled() => {
                tracing::debug!(peer = ?peer.0, "ended to make room");
                counted.ended("room");
                connection.as_mut().graceful_shutdown();
                // The other waits for the place: what cannot be said at once is not said.
                poll_fn(|cx| {
                    Poll::Ready(go_on(connection.as_mut(), &send, cx).is_ready())
                })
                .await;
                return;
            }
            _ = looks.tick() => {
                let look = place.progress.look();
                if end.is_some_and(|end| end.has_come(look)) {
                    return;
                }
                let why = Why::of(look, &limits).filter(|why| End::is_to_come(end, *why));
                let Some(why) = why else { continue };
                if why == Why::Late {
                    tracing::debug!(peer = ?peer.0, "client takes its answer too slowly");
                    refusals::note("transfer_bytes_per_sec_min");
                    counted.ended("late");
                }
                end = Some(End::after(limits.leave_timeout(), why));
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

/// Lets a connection go on, and has what it wrote sent.
fn go_on<C: Future>(
    connection: Pin<&mut C>,
    send: &impl Fn(&mut Context<'_>),
    cx: &mut Context<'_>,
) -> Poll<C::Output> {
    let poll = connection.poll(cx);
    send(cx);
    poll
}

/// Why a connection is to end; what stands lower weighs more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Why {
    Idle,
    Late,
    Stopping,
}

impl Why {
    fn of(look: Look, limits: &Limits) -> Option<Self> {
        match look {
            Look::Late => Some(Self::Late),
            Look::Idle(time) if time > limits.idle_timeout => Some(Self::Idle),
            Look::Idle(_) | Look::Busy => None,
        }
    }
}

/// When a connection ends that was told to.
#[derive(Debug, Clone, Copy)]
struct End {
    at: Instant,
    why: Why,
}

impl End {
    fn after(time: Duration, why: Why) -> Self {
        Self { at: Instant::now() + time, why }
    }

    /// A request that was on its way when an idle connection was told to end is served first.
    fn has_come(self, look: Look) -> bool {
        Instant::now() >= self.at && !(self.why == Why::Idle && look == Look::Busy)
    }

    /// Whether a connection was not told to end yet, or for what weighs less than `why`.
    fn is_to_come(end: Option<Self>, why: Why) -> bool {
        end.is_none_or(|end| end.why < why)
    }
}

impl Limits {
    /// How often a connection is looked at: often enough for its shortest time.
    fn look_interval(&self) -> Duration {
        (self.idle_timeout.min(self.body_idle) / 4).clamp(LOOK_INTERVAL_MIN, LOOK_INTERVAL_MAX)
    }

    fn leave_timeout(&self) -> Duration {
        self.idle_timeout.min(LEAVE_TIMEOUT_MAX)
    }
}

fn http_builder(limits: &Limits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.idle_timeout)
        .max_buf_size(limits.header_bytes_max as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(limits.idle_timeout / 3)
        // It stands behind what the client has not read yet.
        .keep_alive_timeout(limits.answer_rate().time_max())
        .initial_stream_window_size(HTTP2_WINDOW_BYTES)
        .initial_connection_window_size(HTTP2_WINDOW_BYTES)
        .max_frame_size(HTTP2_FRAME_BYTES)
        .max_concurrent_streams(HTTP2_STREAMS_MAX)
        .max_header_list_size(HTTP2_HEADER_BYTES_MAX);
    builder
}
