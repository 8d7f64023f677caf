//! An object on its way out of an S3 store.

use std::sync::Arc;

use berth_shared::serve::budget::Reservation;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream, stream::BoxStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::storage::{Error, Location, ObjectStream, Shares};

/// What is read of a connection at once, at first. Each piece is twice as long as the one before at most,
/// and counts as that until it is known how long it is.
const PIECE_BYTES_MIN: usize = 16 * 1024;

/// And in the end.
const PIECE_BYTES_MAX: usize = 512 * 1024;

/// How many pieces of a download are held at once: it is one where the client has half of its share in
/// use.
const PIECES_IN_HAND: u32 = 3;

/// What a client may hold while it is read for.
pub(super) struct Client {
    shares: Shares,
    _file: Reservation,
    first: Option<Reservation>,
    in_hand: Arc<Semaphore>,
}

impl Client {
    /// With room for a first piece, for which nothing has been answered yet, and the place of a file.
    pub(super) async fn begin(shares: &Shares) -> Result<Self, Error> {
        let file = shares.file().await?;
        let first = Some(shares.room(PIECE_BYTES_MIN).await?);
        let shares = Shares { has_begun: true, ..shares.clone() };
        let in_hand = Arc::new(Semaphore::new(PIECES_IN_HAND as usize));
        Ok(Self { shares, _file: file, first, in_hand })
    }

    /// Room for the next piece, where need be once the client has taken those before it.
    async fn room(&mut self, longest: usize) -> Result<Room, Error> {
        let memory = &self.shares.memory;
        let has_plenty = memory.room() > memory.max() / 2;
        let pieces = if has_plenty { 1 } else { PIECES_IN_HAND };
        // `None` is for a semaphore that was closed, which nobody does.
        let in_hand = Arc::clone(&self.in_hand).acquire_many_owned(pieces).await.ok();
        let memory = match self.first.take() {
            Some(first) => first,
            None => {
                let length = (2 * longest).clamp(PIECE_BYTES_MIN, PIECE_BYTES_MAX);
                self.shares.room(length).await?
            }
        };
        Ok(Room { memory, in_hand })
    }
}

/// What a piece takes up of its client's until it is dropped.
struct Room {
    memory: Reservation,
    in_hand: Option<OwnedSemaphorePermit>,
}

/// A piece with its place.
struct Piece {
    bytes: Bytes,
    _in_hand: Option<OwnedSemaphorePermit>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Room {
    fn hold(self, bytes: Bytes) -> Bytes {
        let Self { mut memory, in_hand } = self;
        memory.shrink(bytes.len());
        memory.hold(Piece { bytes, _in_hand: in_hand })
    }
}

/// The pieces of a body of so many bytes in their order, each on the account of who it is for. What the
/// connection has ready is read when there is room for it: who takes nothing holds the window of a
/// connection, and no memory.
pub(super) fn pieces(
    location: Location,
    length: u64,
    body: BoxStream<'static, Result<Bytes, Error>>,
    client: Option<Client>,
) -> ObjectStream {
    let pieces = Pieces { location, left: length, body, longest: 0, client };
    stream::try_unfold(pieces, Pieces::next).boxed()
}

struct Pieces {
    location: Location,
    /// How many bytes are to come.
    left: u64,
    body: BoxStream<'static, Result<Bytes, Error>>,
    /// How long a piece was until now.
    longest: usize,
    client: Option<Client>,
}

impl Pieces {
    async fn next(mut self) -> Result<Option<(Bytes, Self)>, Error> {
        if self.left == 0 {
            return Ok(None);
        }
        let room = match &mut self.client {
            Some(client) => Some(client.room(self.longest).await?),
            None => None,
        };
        let piece = self.body.try_next().await?;
        let Some(piece) = piece.filter(|piece| piece.len() as u64 <= self.left) else {
            return Err(Error::NotFound(self.location));
        };
        self.left -= piece.len() as u64;
        self.longest = self.longest.max(piece.len());
        let piece = match room {
            Some(room) => room.hold(piece),
            None => piece,
        };
        Ok(Some((piece, self)))
    }
}
