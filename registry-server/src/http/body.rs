//! The body of an answer that lies in memory.

use std::{convert::Infallible, iter};

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;

/// How much is handed on at once, so that what a client takes can be seen.
const PIECE_BYTES: usize = 64 * 1024;

/// A body that is handed on in pieces. They share the memory, and the reservation that may be tied to
/// it.
pub(super) fn in_pieces(mut bytes: Bytes) -> Body {
    let next = move || {
        let length = bytes.len().min(PIECE_BYTES);
        (length > 0).then(|| Ok::<_, Infallible>(bytes.split_to(length)))
    };
    Body::from_stream(stream::iter(iter::from_fn(next)))
}
