//! Several ranges of a blob in one answer: `multipart/byteranges` (RFC 9110 §14.6).

use std::ops::Range;

use axum::body::Body;
use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt, future, stream};

use crate::{metadata::blob::Blob, registry::Error, storage::ObjectStream};

/// The frame around the parts of content.
pub(super) struct Multipart {
    boundary: String,
    heads: Vec<Bytes>,
    tail: Bytes,
    content_bytes: u64,
}

impl Multipart {
    /// For these parts of the blob.
    pub(super) fn new(blob: &Blob, parts: &[Range<u64>]) -> Self {
        // No content holds its own digest, and a boundary may have 70 letters (RFC 2046 §5.1.1).
        let boundary: String = blob.digest.hex().chars().take(64).collect();
        let head = |(n, part): (usize, &Range<u64>)| {
            let before = if n > 0 { "\r\n" } else { "" };
            Bytes::from(format!(
                "{before}--{boundary}\r\nContent-Type: application/octet-stream\r\nContent-Range: {}\r\n\r\n",
                content_range(part, blob.size)
            ))
        };
        Self {
            heads: parts.iter().enumerate().map(head).collect(),
            tail: Bytes::from(format!("\r\n--{boundary}--\r\n")),
            content_bytes: parts.iter().map(|part| part.end - part.start).sum(),
            boundary,
        }
    }

    pub(super) fn content_type(&self) -> String {
        format!("multipart/byteranges; boundary={}", self.boundary)
    }

    /// The length of the body, in bytes.
    pub(super) fn length(&self) -> u64 {
        let frame: usize = self.heads.iter().map(Bytes::len).sum();
        self.content_bytes + (frame + self.tail.len()) as u64
    }

    /// The body, with the content of each part.
    pub(super) fn body(
        self,
        contents: impl Stream<Item = Result<ObjectStream, Error>> + Send + 'static,
    ) -> Body {
        let framed = stream::iter(self.heads).zip(contents).map(|(head, content)| {
            let content = content?.map_err(Error::from);
            Ok::<_, Error>(stream::once(future::ready(Ok(head))).chain(content))
        });
        let tail = stream::once(future::ready(Ok(self.tail)));
        Body::from_stream(framed.try_flatten().chain(tail))
    }
}

/// The value of `Content-Range` for a part of content of `size` bytes.
pub(super) fn content_range(part: &Range<u64>, size: u64) -> String {
    format!("bytes {}-{}/{size}", part.start, part.end - 1)
}
