//! Several ranges of a blob in one answer: `multipart/byteranges` (RFC 9110 §14.6).

use std::ops::Range;

use axum::body::Body;
use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt, future, stream};

use crate::{metadata::blob::Blob, registry::Error, storage::ObjectStream};

/// The frame around the parts of content.
pub(super) struct Multipart {
    boundary: String,
    size: u64,
    parts: Vec<Range<u64>>,
}

impl Multipart {
    /// For these parts of the blob.
    pub(super) fn new(blob: &Blob, parts: Vec<Range<u64>>) -> Self {
        // No content holds its own digest, and a boundary may have 70 letters (RFC 2046 §5.1.1).
        let boundary = blob.digest.hex().chars().take(64).collect();
        Self { boundary, size: blob.size, parts }
    }

    pub(super) fn content_type(&self) -> String {
        format!("multipart/byteranges; boundary={}", self.boundary)
    }

    /// The length of the body, in bytes.
    pub(super) fn length(&self) -> u64 {
        let parts = self.parts.iter().enumerate();
        let parts = parts.map(|(n, part)| self.head(n).len() as u64 + part.end - part.start);
        parts.sum::<u64>() + self.tail().len() as u64
    }

    /// The body, with the content of each part.
    pub(super) fn body(
        self,
        contents: impl Stream<Item = Result<ObjectStream, Error>> + Send + 'static,
    ) -> Body {
        let tail = stream::once(future::ready(Ok(self.tail())));
        let framed = contents.enumerate().map(move |(n, content)| {
            let content = content?.map_err(Error::from);
            Ok::<_, Error>(stream::once(future::ready(Ok(self.head(n)))).chain(content))
        });
        Body::from_stream(framed.try_flatten().chain(tail))
    }

    /// What stands before part `n`.
    fn head(&self, n: usize) -> Bytes {
        let (before, boundary) = (if n > 0 { "\r\n" } else { "" }, &self.boundary);
        let range = self.parts.get(n).map(|part| content_range(part, self.size));
        Bytes::from(format!(
            "{before}--{boundary}\r\nContent-Type: application/octet-stream\r\n\
             Content-Range: {}\r\n\r\n",
            range.unwrap_or_default()
        ))
    }

    fn tail(&self) -> Bytes {
        Bytes::from(format!("\r\n--{}--\r\n", self.boundary))
    }
}

/// The value of `Content-Range` for a part of content of `size` bytes.
pub(super) fn content_range(part: &Range<u64>, size: u64) -> String {
    format!("bytes {}-{}/{size}", part.start, part.end - 1)
}
