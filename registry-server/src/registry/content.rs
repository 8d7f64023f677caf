//! Content on its way in: bytes as they arrive, and how many were announced.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use berth_shared::serve::budget::Share;
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream::BoxStream};
use tokio::time::timeout;

use super::{Error, Limits};

/// How often a manifest is in memory at most while it is pushed or read: once more in what was read
/// from it, or in the database's hands.
pub(crate) const MANIFEST_COPIES: usize = 2;

/// How much of a body is read and thrown away before a refusal is answered, in bytes.
const DRAIN_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// How long that may take.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes that a client sends.
pub(crate) struct Content {
    stream: BoxStream<'static, io::Result<Bytes>>,
    length: Option<u64>,
    ended: bool,
}

impl Content {
    /// Wraps a stream of chunks; `length` is what the client announced.
    pub(crate) fn new(
        stream: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
        length: Option<u64>,
    ) -> Self {
        Self { stream: stream.boxed(), length, ended: length == Some(0) }
    }

    /// How many bytes were announced; `None` when the client did not say.
    pub(crate) fn length(&self) -> Option<u64> {
        self.length
    }

    /// Reads a manifest whole, on the account of who sends it.
    pub(crate) async fn collect(
        &mut self,
        limits: &Limits,
        memory: &Share,
    ) -> Result<Bytes, Error> {
        let most = limits.manifest_bytes_max;
        let too_large = || Error::ManifestTooLarge(most);
        let announced = self.length.map(usize::try_from).transpose().map_err(|_| too_large())?;
        if announced.is_some_and(|length| length > most) {
            return Err(too_large());
        }
        let bytes_max = announced.unwrap_or(most);
        let mut room = memory.reserve(bytes_max * MANIFEST_COPIES).await?;
        let mut whole = Vec::with_capacity(announced.unwrap_or(0));
        while let Some(chunk) = self.next().await {
            let chunk = chunk.map_err(|error| broken_off(&error))?;
            if whole.len() + chunk.len() > bytes_max {
                return Err(too_large());
            }
            whole.extend_from_slice(&chunk);
        }
        room.shrink(whole.len() * MANIFEST_COPIES);
        Ok(room.hold(whole))
    }

    /// Reads and throws away what is left, within bounds, so that a client which is still sending
    /// gets to read the refusal instead of a broken pipe.
    pub(crate) async fn drain(&mut self) {
        // Past the bound the connection is closed: the client was warned long enough.
        let _ = timeout(DRAIN_TIMEOUT, self.discard(DRAIN_BYTES_MAX)).await;
    }

    /// Reads and throws away what is left, up to `bytes_max`, at the least rate of every body.
    pub(crate) async fn discard(&mut self, bytes_max: u64) {
        let mut left = bytes_max;
        while let Some(Ok(chunk)) = self.next().await {
            let Some(less) = left.checked_sub(chunk.len() as u64) else { break };
            left = less;
        }
    }
}

/// What is said of a body that ended too early: it came too slowly, or was cut off.
pub(super) fn broken_off(error: &io::Error) -> Error {
    if error.kind() == io::ErrorKind::TimedOut { Error::BodyLate } else { Error::BodyCutOff }
}

impl Stream for Content {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let poll = self.stream.poll_next_unpin(cx);
        if matches!(poll, Poll::Ready(None | Some(Err(_)))) {
            self.ended = true;
        }
        poll
    }
}
