//! An object on its way out: read a piece at a time, on the account of who reads it.

use std::{fs::File, io, os::unix::fs::FileExt, sync::Arc};

use berth_shared::serve::budget::{Busy, Reservation};
use bytes::Bytes;
use tokio::task::JoinHandle;

use super::{ended, explain, on_disk};
use crate::storage::{Error, Location, Shares};

/// How much is read from a file at once, at most: pieces of a client that has much under way are
/// smaller. Two pieces are held per download, one where the client has half of its share in use.
const PIECE_BYTES_MAX: usize = 256 * 1024;

/// How much is read at once, at least.
const PIECE_BYTES_MIN: usize = 8 * 1024;

/// How much is read at once for a client that has half of its share in use, at most.
const SMALL_PIECE_BYTES_MAX: usize = 64 * 1024;

/// And a small piece is what the client may still hold by this, so that hundreds of slow downloads
/// of one client go on side by side.
const SMALL_PIECES_IN_ROOM: usize = 512;

/// Who reads.
pub(super) enum Reader {
    /// The server itself, in tasks that are few.
    Server,
    /// A client, within its shares.
    Client { shares: Shares, _file: Reservation },
}

impl Reader {
    /// How large a piece may be now.
    pub(super) fn piece_bytes(&self) -> u64 {
        let bytes = match self {
            Self::Server => PIECE_BYTES_MAX,
            Self::Client { shares: Shares { memory, .. }, .. } => match memory.room() {
                room if room > memory.max() / 2 => PIECE_BYTES_MAX,
                room => (room / SMALL_PIECES_IN_ROOM).clamp(PIECE_BYTES_MIN, SMALL_PIECE_BYTES_MAX),
            },
        };
        bytes as u64
    }

    /// Room for a first piece, for which nothing has been answered yet.
    pub(super) async fn room_to_begin(&self, bytes: u64) -> Result<Room, Busy> {
        match self {
            Self::Server => Ok(None),
            Self::Client { shares, .. } => shares.room(size(bytes)).await.map(Some),
        }
    }

    /// Room for a further piece. The client is not at fault, so this waits.
    async fn room_to_go_on(&self, bytes: u64) -> Room {
        match self {
            Self::Server => None,
            Self::Client { shares, .. } => Some(shares.memory.wait_for(size(bytes)).await),
        }
    }

    /// Room for a piece that nobody waits for yet, where there is plenty.
    fn room_ahead(&self, bytes: u64) -> Option<Room> {
        match self {
            Self::Server => Some(None),
            Self::Client { shares: Shares { memory, .. }, .. }
                if memory.room() > memory.max() / 2 =>
            {
                memory.try_reserve(size(bytes)).map(Some)
            }
            Self::Client { .. } => None,
        }
    }
}

/// The reservation of a piece; none for the server's own.
type Room = Option<Reservation>;

/// A piece has a size that memory has.
fn size(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

pub(super) fn read_piece(file: &File, at: u64, length: u64, room: Room) -> io::Result<Bytes> {
    let mut piece = vec![0; size(length)];
    file.read_exact_at(&mut piece, at)?;
    Ok(match room {
        Some(room) => room.hold(piece),
        None => piece.into(),
    })
}

/// The rest of an object, one piece read ahead of the client where there is plenty of room.
pub(super) struct Pieces {
    pub(super) location: Location,
    pub(super) file: Arc<File>,
    pub(super) reader: Reader,
    pub(super) at: u64,
    pub(super) end: u64,
    pub(super) ahead: Option<JoinHandle<io::Result<Bytes>>>,
}

impl Pieces {
    fn next_length(&self) -> u64 {
        (self.end - self.at).min(self.reader.piece_bytes())
    }

    fn begin(&mut self, length: u64, room: Room) -> JoinHandle<io::Result<Bytes>> {
        let (file, at) = (Arc::clone(&self.file), self.at);
        self.at += length;
        on_disk("reading", move || read_piece(&file, at, length, room))
    }

    pub(super) fn read_ahead(mut self) -> Self {
        let length = self.next_length();
        if length > 0
            && let Some(room) = self.reader.room_ahead(length)
        {
            self.ahead = Some(self.begin(length, room));
        }
        self
    }

    pub(super) async fn next(mut self) -> Option<(Result<Bytes, Error>, Self)> {
        let piece = match self.ahead.take() {
            Some(piece) => piece,
            None if self.at == self.end => return None,
            None => {
                let length = self.next_length();
                let room = self.reader.room_to_go_on(length).await;
                self.begin(length, room)
            }
        };
        match ended(piece).await {
            Ok(piece) => Some((Ok(piece), self.read_ahead())),
            Err(source) => {
                self.at = self.end;
                Some((Err(explain("reading", &self.location, source)), self))
            }
        }
    }
}
