//! Where bytes lie: objects at locations, and nothing about what they mean.
//!
//! A location is made fresh for each upload and never used twice, so deleting an object can never
//! race with a push of the same content. The database says which object holds which digest; an
//! object without a row is an orphan.

pub mod disk;
#[cfg(test)]
pub(crate) mod parts;
pub mod room;
pub mod s3;
#[cfg(test)]
mod suite;

use std::{fmt, io, ops::Range, str::FromStr};

use async_trait::async_trait;
use berth_shared::{
    clock::UnixSeconds,
    serve::budget::{Busy, Reservation, Share},
};
use bytes::Bytes;
use futures_util::stream::BoxStream;
use ring::rand::{SecureRandom, SystemRandom};

use room::{Room, RoomShare};

/// Where an object lies: 128 random bits in hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Location(String);

impl Location {
    /// A location that was never used before.
    ///
    /// # Errors
    /// When the system has no random bits to give.
    pub fn fresh() -> Result<Self, Error> {
        random_hex().map(Self)
    }

    /// The location as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// 128 random bits in hexadecimal: locations and upload ids are made of them.
///
/// # Errors
/// When the system has no random bits to give.
pub(crate) fn random_hex() -> Result<String, Error> {
    let mut bits = [0_u8; 16];
    SystemRandom::new().fill(&mut bits).map_err(|_| Error::Random)?;
    Ok(format!("{:032x}", u128::from_be_bytes(bits)))
}

/// Whether `text` has the form that [`random_hex`] gives.
pub(crate) fn is_random_hex(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

impl FromStr for Location {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if is_random_hex(text) { Ok(Self(text.to_owned())) } else { Err(Error::BadLocation) }
    }
}

/// Why an object cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No object lies there, or it is shorter than asked for.
    #[error("object {0:?} is missing")]
    NotFound(Location),
    /// No room is left.
    #[error("the store is full")]
    Full,
    /// A location from the database is none.
    #[error("the database holds a location that is none")]
    BadLocation,
    /// The system gave no random bits.
    #[error("the system has no random bits to give")]
    Random,
    /// The object would have more bytes than the store takes in one.
    #[error(
        "the store takes no object of more than {0} bytes: a larger store.part_bytes allows more"
    )]
    TooLarge(u64),
    /// The store does not answer, or not now.
    #[error("{operation} object {location:?}: the store does not answer")]
    Away {
        /// What was being done.
        operation: &'static str,
        /// To which object.
        location: Location,
        /// What was heard of it.
        source: io::Error,
    },
    /// The client has its share of memory or files in use.
    #[error(transparent)]
    Busy(#[from] Busy),
    /// Anything else that the system said.
    #[error("{operation} object {location:?}")]
    Io {
        /// What was being done.
        operation: &'static str,
        /// To which object.
        location: Location,
        /// What the system said.
        source: io::Error,
    },
}

/// The bytes of an object, in order.
pub type ObjectStream = BoxStream<'static, Result<Bytes, Error>>;

/// What a client may hold while it is read for: the bytes that are on their way to it, and the files
/// that they come from.
#[derive(Debug, Clone)]
pub struct Shares {
    /// In bytes.
    pub memory: Share,
    /// In files.
    pub files: Share,
    /// Whether the answer has begun for which they are: then they are waited for as long as it takes.
    pub has_begun: bool,
}

impl Shares {
    /// A file, when there is room for one.
    ///
    /// # Errors
    /// When there is none for a while, and the answer has not begun.
    pub async fn file(&self) -> Result<Reservation, Busy> {
        self.of(&self.files, 1).await
    }

    /// Room for so many bytes, likewise.
    ///
    /// # Errors
    /// As [`file`](Self::file).
    pub async fn room(&self, bytes: usize) -> Result<Reservation, Busy> {
        self.of(&self.memory, bytes).await
    }

    async fn of(&self, share: &Share, amount: usize) -> Result<Reservation, Busy> {
        if self.has_begun { Ok(share.wait_for(amount).await) } else { share.reserve(amount).await }
    }
}

/// What lies in one of the 256 shards of a store, by the first two digits of the location.
#[derive(Debug, Clone, Default)]
pub struct Listing {
    /// The objects.
    pub objects: Vec<Location>,
    /// What lies among them and is none, as a person would name it.
    pub strange: Vec<String>,
}

/// An object as it was last recorded: an unfinished one, or any that nothing owns any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// Where it lies, or is to.
    pub location: Location,
    /// How many of its bytes are durable.
    pub received: u64,
    /// What else the store has to remember of it until it is finished, in words of its own.
    pub state: Option<String>,
}

impl Draft {
    /// An object that was finished, or holds nothing yet.
    #[must_use]
    pub fn of(location: Location, received: u64) -> Self {
        Self { location, received, state: None }
    }
}

/// An object that nothing owns any more.
pub type Dead = Draft;

/// An object that lasts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// Where it lies.
    pub location: Location,
    /// What else lies there for it, and is to go when it counts.
    pub left: Option<Dead>,
}

/// What a store knows about an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Described {
    /// Its length in bytes.
    pub length: u64,
    /// When it was made or last written.
    pub changed: UnixSeconds,
}

/// A store of objects.
///
/// Nothing here is atomic across objects, and nothing need be: the database commits.
#[async_trait]
pub trait Store: fmt::Debug + Send + Sync {
    /// Whether it is this process's alone, as a directory is that is locked: then what no row names is
    /// found by listing it.
    fn is_local(&self) -> bool;

    /// The length of an object in bytes; [`Error::NotFound`] when there is none.
    async fn length(&self, location: &Location) -> Result<u64, Error>;

    /// Reads a part. [`Error::NotFound`] before the first byte when the object is missing or ends
    /// earlier. A store that cannot read what is unfinished finds nothing there, and a session whose
    /// hash is lost ends with that; the disk can. A client never holds more than its shares: what has
    /// begun waits for them, what has not gets [`Error::Busy`] after a while; without shares it is for
    /// the server itself.
    async fn read(
        &self,
        shares: Option<&Shares>,
        location: &Location,
        part: Range<u64>,
    ) -> Result<ObjectStream, Error>;

    /// Whether the object can only be finished.
    fn is_sealed(&self, draft: &Draft) -> bool;

    /// What has to be recorded before an unfinished object is [opened](Self::open), so that whatever
    /// comes to lie there for it can be found by its row; `None` where nothing has. [`Error::NotFound`]
    /// when nothing is to be appended any more.
    fn reserve(&self, draft: &Draft) -> Result<Option<Draft>, Error>;

    /// Goes on with an unfinished object behind what is durable of it, or begins one. No two requests
    /// work on one at once.
    async fn open(&self, draft: Draft) -> Result<Box<dyn ObjectWriter>, Error>;

    /// Gives back the room of what was appended to an unfinished object and is not in the draft.
    async fn cut_back(&self, draft: &Draft) -> Result<(), Error>;

    /// Makes an object of what a stream of so many bytes brings, whatever lies there. It lasts then.
    async fn put(&self, location: &Location, length: u64, bytes: ObjectStream)
    -> Result<(), Error>;

    /// Deletes objects, and says of each what became of it; one that is missing is deleted already.
    /// With an unfinished one goes all that lies there for it, recorded or not.
    async fn delete(&self, dead: &[Dead]) -> Vec<Result<(), Error>>;

    /// What is known about an object; [`Error::NotFound`] when there is none.
    async fn describe(&self, location: &Location) -> Result<Described, Error>;

    /// Lists one shard.
    async fn list(&self, shard: u8) -> Result<Listing, Error>;

    /// A URL by which a client may read the object for a while without us, if clients are to.
    async fn signed_url(&self, _location: &Location) -> Result<Option<String>, Error> {
        Ok(None)
    }

    /// How many bytes may still be written before the store counts as full; `None` where there is no
    /// such number.
    async fn free_bytes(&self) -> Result<Option<u64>, Error>;

    /// The memory for what grows there, where that is held until it is a part.
    fn room(&self) -> Option<&Room>;
}

/// An unfinished object, which grows. It may be dropped at any time, and another one opened on the
/// draft that was recorded.
#[async_trait]
pub trait ObjectWriter: Send {
    /// Appends the chunks in order. After an error the object may hold any part of them.
    /// [`Error::NotFound`] when it holds less than the draft says. Gives what has to be recorded before
    /// anything else is done with it, by which not a byte more counts.
    async fn append(&mut self, chunks: Vec<Bytes>) -> Result<Option<Draft>, Error>;

    /// The first mark behind `least` bytes up to which it can be recorded while it grows on; `None` where it is
    /// recorded when it rests.
    fn mark(&self, _least: u64) -> Option<u64> {
        None
    }

    /// What has to be recorded for that much of it to count, once it is durable up to such a mark.
    fn up_to(&self, _mark: u64) -> Option<Draft> {
        None
    }

    /// Whether it may stay as it is while nothing comes: a file, where one may stay open, and what is in
    /// memory, where the pusher has room for that.
    fn may_rest(&mut self, may_stay_open: bool, room: Option<&RoomShare>) -> bool;

    /// Makes everything appended so far durable, and says what has to be recorded for that to hold.
    async fn checkpoint(self: Box<Self>) -> Result<Draft, Error>;

    /// Makes everything durable that finishing rests on, and says what has to be recorded before;
    /// `None` where it rests on nothing.
    async fn seal(&mut self) -> Result<Option<Draft>, Error>;

    /// Makes it an object that lasts. May be repeated on the draft that was recorded, and then it may
    /// lie elsewhere.
    async fn finish(self: Box<Self>) -> Result<Finished, Error>;
}
