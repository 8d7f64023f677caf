//! What a connection does: which requests are under way on it, and whether the client takes what is
//! ready for it.
//!
//! Every byte of an answer is followed until the socket has it, or TLS for its last 64 KiB and the
//! outbox of HTTP/2 for 32 more, past the buffers of HTTP/1 and HTTP/2, so that a window that is never
//! opened is seen as well as a socket that is never read.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::body::Body;
use bytes::{Buf, Bytes};
use http_body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{
    budget::Reservation,
    pace::{LeastRate, Pace},
};

/// What a connection has been doing.
pub(super) struct Progress {
    rate: LeastRate,
    began: Instant,
    state: Mutex<State>,
}

struct State {
    /// When the last request ended, or the connection began.
    idle_since: Instant,
    /// When bytes of a body moved last, either way.
    moved: Instant,
    /// When the first request came, and whether the client has taken anything of an answer.
    asked_first: Option<Instant>,
    has_taken: bool,
    /// Bytes of bodies that moved in all, either way.
    carried: u64,
    /// How fast the client takes what is written to the socket.
    socket: Pace,
    under_way: HashMap<u64, Transfer>,
    next: u64,
}

/// A request under way.
struct Transfer {
    /// How fast the client takes the answer.
    answer: Pace,
    /// Bytes of the answer that are ready and not with the socket yet.
    unsent: usize,
    /// The handler waits for more of the request's body.
    is_body_awaited: bool,
}

/// What is to be said of a connection at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// No request has been under way for so long.
    Idle(Duration),
    /// An answer waits for a client that takes less than the least rate.
    Late,
    /// A request is under way.
    Busy,
}

/// Since when a client keeps the server waiting. The least is the first to make room for others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    /// It asks for nothing, or has never taken anything of what it asked for.
    Idle(Instant),
    /// Each of its requests waits for it.
    Stalled(Instant),
}

impl Standing {
    pub(super) fn since(self) -> Instant {
        match self {
            Self::Idle(since) | Self::Stalled(since) => since,
        }
    }
}

impl Progress {
    pub(super) fn new(rate: LeastRate) -> Arc<Self> {
        let now = Instant::now();
        let state = State {
            idle_since: now,
            moved: now,
            asked_first: None,
            has_taken: false,
            carried: 0,
            socket: Pace::new(rate),
            under_way: HashMap::new(),
            next: 0,
        };
        Arc::new(Self { rate, began: now, state: Mutex::new(state) })
    }

    pub(super) fn look(&self) -> Look {
        let (state, now) = (self.state.lock(), Instant::now());
        let is_late = |transfer: &Transfer| transfer.answer.is_late(now);
        if state.socket.is_late(now) || state.under_way.values().any(is_late) {
            Look::Late
        } else if state.under_way.is_empty() && !state.socket.is_awaited() {
            Look::Idle(now.duration_since(state.idle_since))
        } else {
            Look::Busy
        }
    }

    /// Since when the client keeps the server waiting; `None` when it does not.
    pub(super) fn standing(&self) -> Option<Standing> {
        let state = self.state.lock();
        if state.under_way.is_empty() {
            // The last of an answer may be on its way from TLS to the socket.
            return Some(match state.socket.awaited_since() {
                Some(since) => Standing::Stalled(since),
                None => Standing::Idle(state.idle_since),
            });
        }
        // Who takes nothing of any answer, however often it asks, has not come for answers.
        let is_untaken = |transfer: &Transfer| transfer.unsent > 0 && !transfer.is_body_awaited;
        if let Some(since) = state.asked_first.filter(|_| !state.has_taken)
            && state.under_way.values().all(is_untaken)
        {
            return Some(Standing::Idle(since));
        }
        let waits = |transfer: &Transfer| transfer.unsent > 0 || transfer.is_body_awaited;
        state.under_way.values().all(waits).then_some(Standing::Stalled(state.moved))
    }

    /// How long the connection is there, and how many bytes of bodies it has carried in a second.
    pub(super) fn use_made(&self) -> (Duration, u64) {
        let age = self.began.elapsed();
        (age, self.state.lock().carried / age.as_secs().max(1))
    }

    /// A request is under way until the result, and what is made of it, are dropped. Gives how many
    /// there are now, too.
    pub(super) fn begin_request(self: &Arc<Self>) -> (Arc<Request>, usize) {
        let mut state = self.state.lock();
        let id = state.next;
        state.next += 1;
        let transfer = Transfer { answer: Pace::new(self.rate), unsent: 0, is_body_awaited: false };
        state.under_way.insert(id, transfer);
        let now = Instant::now();
        state.moved = now;
        state.asked_first.get_or_insert(now);
        let under_way = state.under_way.len();
        (Arc::new(Request { progress: Arc::clone(self), id }), under_way)
    }

    /// The socket took bytes.
    pub(super) fn wrote(&self, bytes: usize) {
        let (mut state, now) = (self.state.lock(), Instant::now());
        state.socket.moved(bytes, 1, now);
        state.socket.rest(now);
    }

    /// The socket takes no more for now.
    pub(super) fn write_blocked(&self) {
        self.state.lock().socket.wait(Instant::now());
    }
}

/// A request under way.
pub(super) struct Request {
    progress: Arc<Progress>,
    id: u64,
}

impl Request {
    /// Follows the answer's body.
    pub(super) fn answer(self: Arc<Self>, body: Body, room: Option<Reservation>) -> AnswerBody {
        AnswerBody { body, request: self, _room: room }
    }

    /// Whether the handler waits for the request's body from now on.
    pub(super) fn await_body(&self, is_awaited: bool) {
        let mut state = self.progress.state.lock();
        if !is_awaited {
            state.moved = Instant::now();
        }
        if let Some(transfer) = state.under_way.get_mut(&self.id) {
            transfer.is_body_awaited = is_awaited;
        }
    }

    /// Bytes of the request's body came.
    pub(super) fn received(&self, bytes: usize) {
        self.progress.state.lock().carried += bytes as u64;
    }

    fn ready(&self, bytes: usize) {
        let mut state = self.progress.state.lock();
        if let Some(transfer) = state.under_way.get_mut(&self.id) {
            transfer.unsent += bytes;
            transfer.answer.wait(Instant::now());
        }
    }

    fn sent(&self, bytes: usize) {
        let (mut state, now) = (self.progress.state.lock(), Instant::now());
        (state.moved, state.has_taken) = (now, true);
        state.carried += bytes as u64;
        let sharers = state.under_way.values().filter(|transfer| transfer.unsent > 0).count();
        let Some(transfer) = state.under_way.get_mut(&self.id) else { return };
        transfer.answer.moved(bytes, sharers, now);
        transfer.unsent = transfer.unsent.saturating_sub(bytes);
        if transfer.unsent == 0 {
            transfer.answer.rest(now);
        }
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        let mut state = self.progress.state.lock();
        let ended = state.under_way.remove(&self.id);
        // An answer without a body is taken with its head.
        state.has_taken |= ended.is_some_and(|transfer| transfer.unsent == 0);
        state.idle_since = Instant::now();
    }
}

/// The body of an answer, whose request is under way until all of it is with the socket.
pub(super) struct AnswerBody {
    body: Body,
    request: Arc<Request>,
    /// What the request takes until then.
    _room: Option<Reservation>,
}

impl HttpBody for AnswerBody {
    type Data = Followed;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Followed>, axum::Error>>> {
        let poll = Pin::new(&mut self.body).poll_frame(cx);
        let follow = |bytes| Followed::new(bytes, Arc::clone(&self.request));
        poll.map(|frame| frame.map(|frame| frame.map(|frame| frame.map_data(follow))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A piece of an answer on its way to the socket.
pub(super) struct Followed {
    bytes: Bytes,
    request: Arc<Request>,
}

impl Followed {
    fn new(bytes: Bytes, request: Arc<Request>) -> Self {
        if !bytes.is_empty() {
            request.ready(bytes.len());
        }
        Self { bytes, request }
    }
}

impl Buf for Followed {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        self.request.sent(count);
    }

    fn copy_to_bytes(&mut self, count: usize) -> Bytes {
        let bytes = self.bytes.copy_to_bytes(count);
        self.request.sent(count);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    const RATE: LeastRate =
        LeastRate { bytes_per_sec: 512, idle: Duration::from_secs(60), ahead_bytes: 512 * 100 };

    /// The next piece of a body.
    async fn piece(body: &mut AnswerBody) -> Followed {
        let frame = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await;
        frame.unwrap().unwrap().into_data().unwrap_or_else(|_| panic!("no data"))
    }

    async fn after(secs: u64) {
        tokio::time::advance(Duration::from_secs(secs)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_is_under_way_until_the_socket_has_its_answer() {
        let progress = Progress::new(RATE);
        after(5).await;
        assert_eq!(progress.look(), Look::Idle(Duration::from_secs(5)));
        let request = progress.begin_request().0;
        after(1000).await;
        assert_eq!(progress.look(), Look::Busy, "a handler may take its time");
        assert_eq!(progress.standing(), None);
        let mut body = request.answer(Body::from("12345"), None);
        let mut last = piece(&mut body).await;
        drop(body);
        last.advance(4);
        after(1).await;
        assert_eq!(progress.look(), Look::Busy);
        last.advance(1);
        drop(last);
        after(7).await;
        assert_eq!(progress.look(), Look::Idle(Duration::from_secs(7)));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_nobody_takes_is_late_and_one_that_is_taken_slowly_is_not() {
        let progress = Progress::new(RATE);
        let mut body = progress.begin_request().0.answer(Body::from(vec![0; 100_000]), None);
        let mut taken = piece(&mut body).await;
        for _ in 0..90 {
            after(2).await;
            taken.advance(1024);
            assert_eq!(progress.look(), Look::Busy);
        }
        let mut body = progress.begin_request().0.answer(Body::from("401"), None);
        let _untaken = piece(&mut body).await;
        after(60).await;
        assert_eq!(progress.look(), Look::Busy);
        after(1).await;
        assert_eq!(progress.look(), Look::Late);
    }

    #[tokio::test(start_paused = true)]
    async fn a_socket_that_takes_nothing_is_late_whatever_waits_for_it() {
        let progress = Progress::new(RATE);
        assert!(matches!(progress.standing(), Some(Standing::Idle(_))));
        progress.write_blocked();
        assert!(
            matches!(progress.standing(), Some(Standing::Stalled(_))),
            "an answer's last bytes"
        );
        after(61).await;
        assert_eq!(progress.look(), Look::Late);
        progress.wrote(1);
        assert_eq!(progress.look(), Look::Idle(Duration::from_secs(61)));
    }

    #[tokio::test(start_paused = true)]
    async fn who_never_took_an_answer_keeps_its_place_no_longer_than_who_asks_for_nothing() {
        let progress = Progress::new(RATE);
        let began = Instant::now();
        let mut body = progress.begin_request().0.answer(Body::from("401"), None);
        let mut untaken = piece(&mut body).await;
        after(1).await;
        let mut more = progress.begin_request().0.answer(Body::from("401"), None);
        let _more = piece(&mut more).await;
        assert_eq!(progress.standing(), Some(Standing::Idle(began)));
        untaken.advance(1);
        assert_eq!(progress.standing(), Some(Standing::Stalled(Instant::now())));
        let uploads = Progress::new(RATE);
        let request = uploads.begin_request().0;
        request.await_body(true);
        assert!(matches!(uploads.standing(), Some(Standing::Stalled(_))), "it sends first");
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_for_nothing_stands_behind_who_keeps_requests_waiting() {
        let (idle, stalled) = (Progress::new(RATE), Progress::new(RATE));
        let request = stalled.begin_request().0;
        request.await_body(true);
        after(10).await;
        let younger = Progress::new(RATE);
        let order = [&idle, &younger, &stalled].map(|progress| progress.standing());
        assert!(order.is_sorted() && order.iter().all(Option::is_some), "{order:?}");
        let _works = stalled.begin_request().0;
        assert_eq!(stalled.standing(), None);
    }
}
