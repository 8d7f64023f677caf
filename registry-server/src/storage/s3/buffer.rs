//! What has come and is no part yet.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use object_store::PutPayload;

/// Chunks shorter than this, on the average of those that come together, are put into one: each of them may
/// keep a much larger piece of memory.
const CHUNK_BYTES_MIN: usize = 8 * 1024;

/// Bytes in memory, in their order.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    chunks: VecDeque<Bytes>,
    bytes: u64,
}

impl Buffer {
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Appends what came together.
    pub(super) fn extend(&mut self, chunks: Vec<Bytes>) {
        let bytes: usize = chunks.iter().map(Bytes::len).sum();
        if bytes < chunks.len() * CHUNK_BYTES_MIN {
            let mut whole = BytesMut::with_capacity(bytes);
            chunks.iter().for_each(|chunk| whole.extend_from_slice(chunk));
            self.push(whole.freeze());
        } else {
            chunks.into_iter().for_each(|chunk| self.push(chunk));
        }
    }

    fn push(&mut self, chunk: Bytes) {
        self.bytes += chunk.len() as u64;
        self.chunks.push_back(chunk);
    }

    /// Puts other bytes in front of all.
    pub(super) fn put_in_front(&mut self, front: Self) {
        for chunk in front.chunks.into_iter().rev() {
            self.bytes += chunk.len() as u64;
            self.chunks.push_front(chunk);
        }
    }

    /// Takes the first of the bytes out, as many as there are at most.
    pub(super) fn take(&mut self, bytes: u64) -> Self {
        let mut taken = Self::default();
        while taken.bytes < bytes {
            let Some(mut chunk) = self.chunks.pop_front() else { break };
            let left = usize::try_from(bytes - taken.bytes).unwrap_or(usize::MAX);
            if chunk.len() > left {
                self.chunks.push_front(chunk.split_off(left));
            }
            self.bytes -= chunk.len() as u64;
            taken.push(chunk);
        }
        taken
    }

    pub(super) fn take_all(&mut self) -> Self {
        std::mem::take(self)
    }

    pub(super) fn payload(self) -> PutPayload {
        self.chunks.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(buffer: Buffer) -> Vec<u8> {
        buffer.chunks.into_iter().collect::<Vec<_>>().concat()
    }

    fn chunks(texts: &[&'static str]) -> Vec<Bytes> {
        texts.iter().map(|text| Bytes::from_static(text.as_bytes())).collect()
    }

    #[test]
    fn bytes_are_taken_in_the_order_in_which_they_came() {
        let mut buffer = Buffer::default();
        buffer.extend(chunks(&["abc", "", "de"]));
        buffer.extend(chunks(&["fgh"]));
        assert_eq!(buffer.chunks.len(), 2);
        let first = buffer.take(4);
        assert_eq!((first.bytes(), buffer.bytes()), (4, 4));
        assert_eq!(text(first), b"abcd");
        let mut front = Buffer::default();
        front.extend(chunks(&["1"]));
        front.extend(chunks(&["2"]));
        buffer.put_in_front(front);
        assert_eq!(buffer.bytes(), 6);
        assert_eq!(text(buffer.take(100)), b"12efgh");
        assert_eq!(buffer.bytes(), 0);
    }
}
