//! What HTTP/2 writes to a connection, gathered until there is no more of it for now.
//!
//! h2 writes and flushes frame by frame. Most clients take frames of 16 KiB, which with their heads
//! are two TLS records and a system call each. Measured for a pull of a large blob: 0.8 times the
//! processor's time.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How much is gathered, at most.
const BYTES_MAX: usize = 32 * 1024;

/// A stream that keeps what is written to it until [`send`](Self::send), or until it is much. Clones
/// are the same.
pub(super) struct Outbox<S>(Arc<Mutex<State<S>>>);

struct State<S> {
    stream: S,
    gathered: Vec<u8>,
    /// How much of that the stream has taken.
    taken: usize,
}

impl<S> Clone for Outbox<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S: AsyncWrite + Unpin> Outbox<S> {
    pub(super) fn new(stream: S) -> Self {
        Self(Arc::new(Mutex::new(State { stream, gathered: Vec::new(), taken: 0 })))
    }

    /// Sends what was gathered, as far as the stream takes it; the task is woken when it takes more.
    pub(super) fn send(&self, cx: &mut Context<'_>) {
        // Whoever writes or ends is told of an error by the stream itself.
        let _ = self.0.lock().poll_send(cx);
    }
}

impl<S: AsyncWrite + Unpin> State<S> {
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.taken < self.gathered.len() {
            let rest = &self.gathered[self.taken..];
            match ready!(Pin::new(&mut self.stream).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.taken += written,
            }
        }
        // An idle connection holds nothing.
        (self.gathered, self.taken) = (Vec::new(), 0);
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn gather(&mut self, bytes: &[u8]) -> usize {
        if self.gathered.capacity() == 0 {
            self.gathered.reserve_exact(BYTES_MAX);
        }
        let length = bytes.len().min(BYTES_MAX - self.gathered.len());
        self.gathered.extend_from_slice(&bytes[..length]);
        length
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Outbox<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.lock().stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Outbox<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.0.lock();
        if state.gathered.len() == BYTES_MAX {
            ready!(state.poll_send(cx))?;
        }
        Poll::Ready(Ok(slices.iter().map(|slice| state.gather(slice)).sum()))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Nothing is flushed before [`send`](Outbox::send).
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.lock();
        ready!(state.poll_send(cx))?;
        Pin::new(&mut state.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn what_is_written_is_sent_at_once_when_asked_for_and_by_itself_when_it_is_much() {
        let (near, mut far) = duplex(4 * BYTES_MAX);
        let mut outbox = Outbox::new(near);
        outbox.write_all(b"one ").await.unwrap();
        outbox.write_all(b"two").await.unwrap();
        outbox.flush().await.unwrap();
        assert!(outbox.0.lock().gathered == b"one two");
        poll_fn(|cx| {
            outbox.send(cx);
            Poll::Ready(())
        })
        .await;
        let mut read = [0; 7];
        far.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"one two");
        assert_eq!(outbox.0.lock().gathered.capacity(), 0);
        let much = vec![b'x'; 2 * BYTES_MAX + 1];
        outbox.write_all(&much).await.unwrap();
        assert_eq!(outbox.0.lock().gathered.len(), 1);
        outbox.shutdown().await.unwrap();
        let mut all = Vec::new();
        far.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, much);
    }

    #[tokio::test]
    async fn what_could_not_be_sent_leaves_when_the_stream_takes_more() {
        let (near, mut far) = duplex(10);
        let mut outbox = Outbox::new(near);
        outbox.write_all(&[b'x'; 1024]).await.unwrap();
        // As a connection does that has nothing else to do until its task is woken.
        let sends = outbox.clone();
        let sender = tokio::spawn(poll_fn(move |cx| {
            sends.send(cx);
            let is_sent = sends.0.lock().gathered.is_empty();
            if is_sent { Poll::Ready(()) } else { Poll::Pending }
        }));
        let mut read = [0; 1024];
        far.read_exact(&mut read).await.unwrap();
        sender.await.unwrap();
    }

    #[tokio::test]
    async fn a_stream_that_takes_no_more_is_waited_for() {
        let (near, mut far) = duplex(10);
        let mut outbox = Outbox::new(near);
        let much = vec![b'x'; 3 * BYTES_MAX];
        let write = async {
            outbox.write_all(&much).await.unwrap();
            outbox.shutdown().await.unwrap();
        };
        let mut all = Vec::new();
        let (_, read) = tokio::join!(write, far.read_to_end(&mut all));
        assert_eq!(read.unwrap(), much.len());
    }
}
