//! The body of a request on its way in: the client must send it at the least rate.
//!
//! Time in which the handler does not ask for more is not the client's. A body that falls behind
//! ends with [`Late`], which handlers can tell from one that was cut off.

use std::{
    error::Error,
    iter,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep_until};

use super::{
    pace::{LeastRate, Pace},
    progress::Request,
};

/// The client sent less than the least rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the body came more slowly than the least rate")]
pub struct Late;

impl Late {
    /// Whether this is what stands behind `error`.
    pub fn is_behind(error: &(dyn Error + 'static)) -> bool {
        iter::successors(Some(error), |&error| error.source()).any(|error| error.is::<Self>())
    }
}

pub(super) struct ArrivingBody {
    body: Incoming,
    request: Arc<Request>,
    pace: Pace,
    alarm: Option<Pin<Box<Sleep>>>,
}

impl ArrivingBody {
    pub(super) fn new(body: Incoming, request: Arc<Request>, rate: LeastRate) -> Self {
        Self { body, request, pace: Pace::new(rate), alarm: None }
    }

    /// Ready when the client has run out of time.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Some(due) = self.pace.due() {
            let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep_until(due)));
            ready!(alarm.as_mut().poll(cx));
            // It was set before bytes came that gave time back.
            if due <= Instant::now() {
                return Poll::Ready(());
            }
            alarm.as_mut().reset(due);
        }
        Poll::Pending
    }
}

impl HttpBody for ArrivingBody {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let poll = Pin::new(&mut self.body).poll_frame(cx);
        let now = Instant::now();
        let Poll::Ready(frame) = poll else {
            if !self.pace.is_awaited() {
                self.pace.wait(now);
                self.request.await_body(true);
            }
            ready!(self.poll_late(cx));
            return Poll::Ready(Some(Err(Late.into())));
        };
        if let Some(Ok(frame)) = &frame {
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            self.pace.moved(bytes, 1, now);
            self.request.received(bytes);
        }
        if self.pace.is_awaited() {
            self.pace.rest(now);
            self.request.await_body(false);
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for ArrivingBody {
    fn drop(&mut self) {
        if self.pace.is_awaited() {
            self.request.await_body(false);
        }
    }
}
