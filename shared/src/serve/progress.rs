//! Whether a connection is doing anything: idle between requests, or stalled by a client that
//! stopped reading.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

/// What a connection has been doing. Times are milliseconds since it began.
pub(super) struct Progress {
    began: Instant,
    last_request_ended: AtomicU64,
    write_blocked_since: AtomicU64,
    requests: AtomicUsize,
}

/// No write is blocked.
const NOT_BLOCKED: u64 = u64::MAX;

impl Progress {
    pub(super) fn new() -> Self {
        Self {
            began: Instant::now(),
            last_request_ended: AtomicU64::new(0),
            write_blocked_since: AtomicU64::new(NOT_BLOCKED),
            requests: AtomicUsize::new(0),
        }
    }

    /// How long no request has been under way.
    pub(super) fn idle_for(&self) -> Duration {
        if self.requests.load(Ordering::SeqCst) > 0 {
            return Duration::ZERO;
        }
        self.since(self.last_request_ended.load(Ordering::SeqCst))
    }

    /// How long the client has left bytes unread.
    pub(super) fn write_stalled_for(&self) -> Duration {
        match self.write_blocked_since.load(Ordering::Relaxed) {
            NOT_BLOCKED => Duration::ZERO,
            blocked => self.since(blocked),
        }
    }

    /// Counts a request until the returned guard, or the body it was tied to, is dropped.
    pub(super) fn begin_request(self: &Arc<Self>) -> InFlight {
        self.requests.fetch_add(1, Ordering::SeqCst);
        InFlight(Arc::clone(self))
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(NOT_BLOCKED - 1)
    }

    fn since(&self, then: u64) -> Duration {
        Duration::from_millis(self.now().saturating_sub(then))
    }

    fn record_write<T>(&self, poll: &Poll<io::Result<T>>) {
        if poll.is_ready() {
            self.write_blocked_since.store(NOT_BLOCKED, Ordering::Relaxed);
        } else if self.write_blocked_since.load(Ordering::Relaxed) == NOT_BLOCKED {
            self.write_blocked_since.store(self.now(), Ordering::Relaxed);
        }
    }
}

/// A request under way.
pub(super) struct InFlight(Arc<Progress>);

impl InFlight {
    /// The request is under way until its answer's body has been sent or given up.
    pub(super) fn until_end_of(self, body: Body) -> Body {
        Body::new(TiedBody { body, _flight: self })
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.last_request_ended.store(self.0.now(), Ordering::SeqCst);
        self.0.requests.fetch_sub(1, Ordering::SeqCst);
    }
}

struct TiedBody {
    body: Body,
    _flight: InFlight,
}

impl HttpBody for TiedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A stream that records in a [`Progress`] when the client stops reading.
pub(super) struct Watched<S> {
    stream: S,
    progress: Arc<Progress>,
}

impl<S> Watched<S> {
    pub(super) fn new(stream: S, progress: Arc<Progress>) -> Self {
        Self { stream, progress }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.progress.record_write(&poll);
        poll
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.progress.record_write(&poll);
        poll
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_flush(cx);
        self.progress.record_write(&poll);
        poll
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
