//! Where bytes lie: objects at locations, and nothing about what they mean.
//!
//! A location is made fresh for each upload and never used twice, so deleting an object can never
//! race with a push of the same content. The database says which object holds which digest; an
//! object without a row is an orphan.

pub mod disk;
#[cfg(test)]
pub(crate) mod parts;
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

    /// Goes on with an unfinished object behind what is durable of it, or begins one. No two requests
    /// work on one at once; `claim` is the session's fence, for names that nobody has recorded.
    async fn open(&self, draft: Draft, claim: u64) -> Result<Box<dyn ObjectWriter>, Error>;

    /// Gives back the room of what was appended to an unfinished object and is not in the draft.
    async fn cut_back(&self, draft: &Draft) -> Result<(), Error>;

    /// Deletes objects, and says of each what became of it; one that is missing is deleted already.
    /// With an unfinished one goes all that lies there for it, recorded or not.
    async fn delete(&self, dead: &[Dead]) -> Vec<Result<(), Error>>;

    /// What is known about an object; [`Error::NotFound`] when there is none.
    async fn describe(&self, location: &Location) -> Result<Described, Error>;

    /// Lists one shard.
    async fn list(&self, shard: u8) -> Result<Listing, Error>;

    /// How many bytes may still be written before the store counts as full; `None` where there is no
    /// such number.
    async fn free_bytes(&self) -> Result<Option<u64>, Error>;
}

/// An unfinished object, which grows. It may be dropped at any time, and another one opened on the
/// draft that was recorded.
#[async_trait]
pub trait ObjectWriter: Send {
    /// Appends the chunks in order. After an error the object may hold any part of them.
    /// [`Error::NotFound`] when it holds less than the draft says.
    async fn append(&mut self, chunks: Vec<Bytes>) -> Result<(), Error>;

    /// Makes everything appended so far durable, and says what has to be recorded for that to hold.
    async fn checkpoint(&mut self) -> Result<Draft, Error>;

    /// Makes everything durable that finishing rests on, and says what has to be recorded before;
    /// `None` where it rests on nothing.
    async fn seal(&mut self) -> Result<Option<Draft>, Error>;

    /// Makes it an object that lasts, and gives where it lies. May be repeated on the same draft.
    async fn finish(self: Box<Self>) -> Result<Location, Error>;
}
