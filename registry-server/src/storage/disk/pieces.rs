//! An object on its way out: read a piece at a time, on the account of who reads it.

use std::{fs::File, io, num::NonZero, os::unix::fs::FileExt, sync::Arc};

use berth_shared::serve::budget::{Busy, Reservation, Share};
use bytes::Bytes;
use rustix::fs::{Advice, fadvise};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{cached::Cached, ended, explain, on_disk};
use crate::storage::{Error, Location, Shares};

/// How many pieces of a download are held at once: one that the client takes, and the next ones. It
/// is one where the client has half of its share in use.
const PIECES_IN_HAND: u32 = 3;

/// How much is read at once where nothing is read from memory: by the server itself, and on file
/// systems that cannot say what they have there.
const DISK_PIECE_BYTES: usize = 256 * 1024;

/// How much else is read at once for a client, at most: what the processor keeps near until it is
/// encrypted, and the allocator without asking the system. Measured for blobs of 1 MiB: 0.8 times
/// the processor's time of pieces of 256 KiB.
const PIECE_BYTES_MAX: usize = 64 * 1024;

/// How far the system is asked to read ahead where a piece was not in memory, so that those behind
/// it are.
const AHEAD_BYTES: u64 = 1024 * 1024;

/// How much is read at once, at least.
const PIECE_BYTES_MIN: usize = 8 * 1024;

/// And a small piece is what the client may still hold by this, so that hundreds of slow downloads
/// of one client go on side by side.
const SMALL_PIECES_IN_ROOM: usize = 512;

/// Who reads.
pub(super) enum Reader {
    /// The server itself, in tasks that are few.
    Server,
    /// A client, within its shares.
    Client { shares: Shares, _file: Reservation, in_hand: Arc<Semaphore> },
}

impl Reader {
    pub(super) fn client(shares: Shares, file: Reservation) -> Self {
        let in_hand = Arc::new(Semaphore::new(PIECES_IN_HAND as usize));
        Self::Client { shares, _file: file, in_hand }
    }

    /// Whether the client has so little under way that it may hold more than it takes.
    fn has_plenty(memory: &Share) -> bool {
        memory.room() > memory.max() / 2
    }

    /// How large a piece may be now, which may lie in memory.
    pub(super) fn piece_bytes(&self, may_be_cached: bool) -> u64 {
        let bytes =
            match self {
                Self::Server => DISK_PIECE_BYTES,
                Self::Client { shares, .. } if Self::has_plenty(&shares.memory) => {
                    if may_be_cached { PIECE_BYTES_MAX } else { DISK_PIECE_BYTES }
                }
                Self::Client { shares, .. } => (shares.memory.room() / SMALL_PIECES_IN_ROOM)
                    .clamp(PIECE_BYTES_MIN, PIECE_BYTES_MAX),
            };
        bytes as u64
    }

    /// Room for a first piece, for which nothing has been answered yet.
    pub(super) async fn room_to_begin(&self, bytes: u64) -> Result<Option<Room>, Busy> {
        let Self::Client { shares, in_hand, .. } = self else { return Ok(None) };
        let in_hand = take(in_hand, 1).await;
        Ok(Some(Room { memory: shares.room(size(bytes)).await?, _in_hand: in_hand }))
    }

    /// How long a further piece of what is left may be, and room for it: where need be once the client
    /// has taken those before it. The client is not at fault, so this waits.
    async fn room_to_go_on(&self, left: u64, may_be_cached: bool) -> (u64, Option<Room>) {
        let Self::Client { shares, in_hand, .. } = self else {
            return (left.min(self.piece_bytes(may_be_cached)), None);
        };
        let pieces = if Self::has_plenty(&shares.memory) { 1 } else { PIECES_IN_HAND };
        let in_hand = take(in_hand, pieces).await;
        // By what the client has under way now: it may have taken its time.
        let length = left.min(self.piece_bytes(may_be_cached));
        let memory = shares.memory.wait_for(size(length)).await;
        (length, Some(Room { memory, _in_hand: in_hand }))
    }
}

/// `None` is for a semaphore that was closed, which nobody does.
async fn take(in_hand: &Arc<Semaphore>, pieces: u32) -> InHand {
    Arc::clone(in_hand).acquire_many_owned(pieces).await.ok()
}

/// The places among [`PIECES_IN_HAND`] that a piece has.
type InHand = Option<OwnedSemaphorePermit>;

/// What a piece takes up of its client's until it is dropped; the server's own pieces have none.
pub(super) struct Room {
    memory: Reservation,
    _in_hand: InHand,
}

/// A piece with its places.
struct Piece {
    bytes: Vec<u8>,
    _in_hand: InHand,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// A piece has a size that memory has.
pub(super) fn size(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// Reads a piece of what should be read to `end`.
pub(super) fn read_piece(
    file: &File,
    at: u64,
    length: u64,
    end: u64,
    room: Option<Room>,
) -> io::Result<Bytes> {
    if end > at + length {
        // Not every file system reads ahead; then each piece waits for itself.
        let ahead = NonZero::new((end - at).min(length + AHEAD_BYTES));
        let _ = fadvise(file, at, ahead, Advice::WillNeed);
    }
    let mut piece = vec![0; size(length)];
    file.read_exact_at(&mut piece, at)?;
    Ok(held(piece, room))
}

/// A piece with the room that it takes up.
pub(super) fn held(piece: Vec<u8>, room: Option<Room>) -> Bytes {
    match room {
        Some(Room { memory, _in_hand }) => memory.hold(Piece { bytes: piece, _in_hand }),
        None => piece.into(),
    }
}

/// The rest of an object, a piece at a time as they are asked for: at once where the piece is in
/// memory, else on the blocking pool.
pub(super) struct Pieces {
    pub(super) location: Location,
    pub(super) file: Arc<File>,
    /// Where it may be read at once.
    pub(super) cached: Option<Arc<Cached>>,
    pub(super) reader: Reader,
    pub(super) at: u64,
    pub(super) end: u64,
}

impl Pieces {
    /// What a client asks for. The server's own reading goes on on the blocking pool: it is long.
    fn read_cached(&self, length: u64) -> Option<Vec<u8>> {
        let Reader::Client { .. } = self.reader else { return None };
        self.cached.as_ref()?.read(&self.file, self.at, size(length))
    }

    async fn read(&self, length: u64, room: Option<Room>) -> io::Result<Bytes> {
        if let Some(piece) = self.read_cached(length) {
            return Ok(held(piece, room));
        }
        let (file, at, end) = (Arc::clone(&self.file), self.at, self.end);
        ended(on_disk("reading", move || read_piece(&file, at, length, end, room))).await
    }

    pub(super) async fn next(mut self) -> Option<(Result<Bytes, Error>, Self)> {
        if self.at == self.end {
            return None;
        }
        let may_be_cached = self.cached.as_ref().is_some_and(|cached| cached.is_supported());
        let (length, room) = self.reader.room_to_go_on(self.end - self.at, may_be_cached).await;
        let piece = self.read(length, room).await;
        self.at = piece.as_ref().map_or(self.end, |piece| self.at + piece.len() as u64);
        Some((piece.map_err(|source| explain("reading", &self.location, source)), self))
    }
}
