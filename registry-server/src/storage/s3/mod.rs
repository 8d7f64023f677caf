//! Objects at an S3-compatible store, or one that has the same calls in words of its own.
//!
//! Needed of it are PUT, GET with a range, HEAD, DELETE, LIST and multipart uploads, and nothing else: no
//! condition, no copy, no version. Each object has a key of its own that is never used twice.

mod bucket;
mod buffer;
mod client;
mod deletion;
mod failure;
mod fill;
mod marker;
mod read;
mod state;
#[cfg(test)]
pub(super) mod tests;
mod writer;

use std::{
    fmt,
    ops::Range,
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Duration,
};

use async_trait::async_trait;
use berth_shared::clock::UnixSeconds;
use futures_util::{StreamExt, TryStreamExt, stream};
use moka::sync::Cache;
use object_store::{ObjectMeta, PutPayload};

use super::{
    Dead, Described, Draft, Error, Listing, Location, ObjectStream, ObjectWriter, Shares, Store,
    random_hex,
    room::{Place, Room},
};
use bucket::Bucket;
use failure::{Failure, Why};
#[cfg(test)]
use marker::MARKER;
use read::Client;
use state::State;
use writer::S3Writer;

pub use client::SetupError;
pub use marker::Unfit;

/// Parts of an object, at most.
const PARTS_MAX: u64 = 10_000;

/// Requests of one session that may break off, each of which may leave an object: then it is over, and the
/// client begins again.
const LOST_MAX: usize = 512;

/// How long it is taken for true that an object is there, and of how many.
const LENGTH_TIME: Duration = Duration::from_secs(10 * 60);
const LENGTHS_MAX: u64 = 100_000;

/// How long it is taken for true that the bucket is the one that it was.
const MARKER_TIME: Duration = Duration::from_secs(5);

/// Which sum the store compares what it gets with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Checksum {
    /// What S3 itself prefers.
    #[default]
    Crc64nvme,
    /// For stores that know no other.
    Sha256,
    /// For stores that know none.
    None,
}

/// Whose protocol the store speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provider {
    /// That of S3: AWS, and many others.
    S3,
    /// Google Cloud Storage.
    Google,
    /// Azure Blob Storage.
    Azure,
}

impl Provider {
    /// What its URLs begin with.
    #[must_use]
    pub fn scheme(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Google => "gs",
            Self::Azure => "az",
        }
    }
}

/// Where the store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Whose protocol it speaks.
    pub provider: Provider,
    /// The bucket.
    pub bucket: String,
    /// What keys begin with there; nothing, or without a slash at its end.
    pub prefix: String,
    /// Where the store answers, unless it is AWS.
    pub endpoint: Option<String>,
    /// Its region.
    pub region: String,
    /// The file of the key's name, or the account's at Azure; else the platform's.
    pub name: Option<PathBuf>,
    /// The file of its secret, or at Google of a service account's key.
    pub secret: Option<PathBuf>,
    /// The CA of its certificate; the system's unless given.
    pub ca: Option<PathBuf>,
    /// Whether the bucket stands in the path, and not in the host's name.
    pub path_style: bool,
    /// The length of parts, in bytes.
    pub part_bytes: u64,
    /// How much of parts may be in memory, in bytes.
    pub buffer_bytes_max: u64,
    /// Which sum is sent along.
    pub checksum: Checksum,
    /// Where clients are sent for large blobs, if they are.
    pub redirect: Option<Redirect>,
}

/// A host of the store's that clients reach, and how long a URL holds that is signed for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// Its URL.
    pub endpoint: String,
    /// For how long.
    pub holds: Duration,
}

impl Settings {
    /// Bucket and prefix, for a person.
    #[must_use]
    pub fn place(&self) -> String {
        let at = self.endpoint.as_ref().map_or(String::new(), |endpoint| format!(" at {endpoint}"));
        let slash = if self.prefix.is_empty() { "" } else { "/" };
        format!("{}://{}{slash}{}{at}", self.provider.scheme(), self.bucket, self.prefix)
    }
}

/// Objects below a prefix of a bucket; clones share its connections.
#[derive(Clone)]
pub struct S3Store(Arc<Inner>);

struct Inner {
    bucket: Bucket,
    place: String,
    part_bytes: u64,
    checksum: Checksum,
    room: Room,
    lengths: Cache<Location, u64>,
    /// Which registry's it is, and whether its marker said so a moment ago.
    identity: OnceLock<String>,
    marked: Cache<(), ()>,
}

impl fmt::Debug for S3Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Store").field("place", &self.0.place).finish_non_exhaustive()
    }
}

/// Under the first two digits, as on a disk.
fn name(location: &Location) -> String {
    format!("{}/{}", &location.as_str()[..2], location.as_str())
}

/// Stands for no object.
fn nowhere() -> Location {
    Location("0".repeat(32))
}

impl S3Store {
    /// The store that the settings name. It is not asked anything.
    ///
    /// # Errors
    /// When a file cannot be read, or the settings make no sense.
    pub fn open(settings: &Settings) -> Result<Self, SetupError> {
        let cache = |most, time| Cache::builder().max_capacity(most).time_to_live(time);
        Ok(Self(Arc::new(Inner {
            bucket: Bucket::open(settings)?,
            place: settings.place(),
            part_bytes: settings.part_bytes,
            checksum: settings.checksum,
            identity: OnceLock::new(),
            room: Room::new(settings.part_bytes, settings.buffer_bytes_max),
            lengths: cache(LENGTHS_MAX, LENGTH_TIME).build(),
            marked: Cache::builder().max_capacity(1).time_to_live(MARKER_TIME).build(),
        })))
    }

    /// Says which registry's it is, as the marker says: else what is missing there is not believed to be.
    pub fn belongs_to(&self, identity: &str) {
        // It is said once.
        let _ = self.0.identity.set(identity.to_owned());
    }

    /// Bucket and prefix, for a person.
    #[must_use]
    pub fn place(&self) -> &str {
        &self.0.place
    }

    fn bucket(&self) -> &Bucket {
        &self.0.bucket
    }

    fn room_of_parts(&self) -> &Room {
        &self.0.room
    }

    fn object_bytes_max(&self, part_bytes: u64) -> u64 {
        PARTS_MAX.saturating_mul(part_bytes)
    }

    /// How long the parts of an object are whose length is known.
    fn part_bytes_for(&self, length: u64) -> Result<u64, Error> {
        let most = self.object_bytes_max(self.0.part_bytes);
        if length <= most { Ok(self.0.part_bytes) } else { Err(Error::TooLarge(most)) }
    }

    /// What became of a call. That an object is missing is believed where the bucket is the one that it
    /// was: whatever else answers knows no object at all.
    async fn explain(
        &self,
        operation: &'static str,
        location: &Location,
        Failure { why, source, .. }: Failure,
    ) -> Error {
        self.0.lengths.invalidate(location);
        let location = location.clone();
        match why {
            Why::Missing | Why::NoUpload | Why::BadPart if self.is_marked().await => {
                Error::NotFound(location)
            }
            Why::Missing | Why::NoUpload | Why::BadPart | Why::Away => {
                Error::Away { operation, location, source }
            }
            Why::Full => Error::Full,
            Why::Refused => Error::Io { operation, location, source },
        }
    }

    async fn is_marked(&self) -> bool {
        if self.0.marked.contains_key(&()) {
            return true;
        }
        let marker = self.marker().await.ok().flatten();
        let is_marked = marker.is_some() && marker.as_ref() == self.0.identity.get();
        if is_marked {
            self.0.marked.insert((), ());
        }
        is_marked
    }

    async fn put_whole(&self, location: &Location, payload: PutPayload) -> Result<(), Error> {
        match self.bucket().put(&name(location), payload).await {
            Ok(()) => Ok(()),
            Err(failure) => Err(self.explain("writing", location, failure.of_new()).await),
        }
    }

    async fn begin_upload(&self, location: &Location) -> Result<String, Error> {
        match self.bucket().begin_upload(&name(location)).await {
            Ok(upload) => Ok(upload),
            Err(failure) => Err(self.explain("beginning", location, failure.of_new()).await),
        }
    }

    async fn put_part(
        &self,
        location: &Location,
        upload: &str,
        number: usize,
        payload: PutPayload,
        place: Option<Place>,
    ) -> Result<String, Error> {
        let name = name(location);
        match self.bucket().put_part(&name, upload, number, payload, place).await {
            Ok(part) => Ok(part),
            Err(failure) => Err(self.explain("writing a part of", location, failure).await),
        }
    }

    /// Makes an object of the parts. The store may have done so before without our having heard it: then
    /// it knows the upload no more, or says something else, and the object is there. Nobody else can have
    /// made it, since its location is this session's alone.
    async fn complete(
        &self,
        location: &Location,
        upload: &String,
        parts: &[String],
        length: u64,
    ) -> Result<(), Error> {
        let Err(failure) = self.bucket().complete(&name(location), upload, parts).await else {
            return Ok(());
        };
        let failure = match self.bucket().head(&name(location)).await {
            Ok(found) if found.size == length => return Ok(()),
            Err(head) if head.why != Why::Missing => head,
            _ => failure,
        };
        Err(self.explain("completing", location, failure).await)
    }
}

#[async_trait]
impl Store for S3Store {
    fn is_local(&self) -> bool {
        false
    }

    async fn length(&self, location: &Location) -> Result<u64, Error> {
        if let Some(length) = self.0.lengths.get(location) {
            return Ok(length);
        }
        let length = self.describe(location).await?.length;
        self.0.lengths.insert(location.clone(), length);
        Ok(length)
    }

    async fn read(
        &self,
        shares: Option<&Shares>,
        location: &Location,
        part: Range<u64>,
    ) -> Result<ObjectStream, Error> {
        if part.is_empty() {
            // No range says so.
            return match self.describe(location).await?.length < part.end {
                true => Err(Error::NotFound(location.clone())),
                false => Ok(stream::empty().boxed()),
            };
        }
        let client = match shares {
            Some(shares) => Some(Client::begin(shares).await?),
            None => None,
        };
        let (length, body) = match self.bucket().read(&name(location), part.clone()).await {
            Ok(found) => found,
            Err(failure) => return Err(self.explain("reading", location, failure).await),
        };
        if length < part.end {
            self.0.lengths.invalidate(location);
            return Err(Error::NotFound(location.clone()));
        }
        let (store, place) = (self.clone(), location.clone());
        let explain = move |failure| {
            let (store, place) = (store.clone(), place.clone());
            async move { Err(store.explain("reading", &place, failure).await) }
        };
        let body = body.or_else(explain).boxed();
        Ok(read::pieces(location.clone(), part.end - part.start, body, client))
    }

    fn is_sealed(&self, draft: &Draft) -> bool {
        draft.state.as_deref().and_then(State::read).is_some_and(|state| state.is_sealed)
    }

    fn reserve(&self, draft: &Draft) -> Result<Option<Draft>, Error> {
        let mut state = State::of(draft, self.0.part_bytes, self.0.checksum)?;
        if state.is_sealed {
            return Ok(None);
        }
        state.lost.extend(state.next.take());
        if state.lost.len() > LOST_MAX {
            return Err(Error::NotFound(draft.location.clone()));
        }
        state.next = Some(random_hex()?);
        Ok(Some(Draft { state: Some(state.text()), ..draft.clone() }))
    }

    async fn open(&self, draft: Draft) -> Result<Box<dyn ObjectWriter>, Error> {
        let mut state = State::of(&draft, self.0.part_bytes, self.0.checksum)?;
        // The row has said so since it was last recorded.
        let spent: Vec<_> = state.spent.iter().filter_map(|at| at.parse().ok()).collect();
        let names: Vec<String> = spent.iter().map(name).collect();
        if self.bucket().delete(&names).await.iter().all(Result::is_ok) {
            state.spent.clear();
        }
        Ok(Box::new(S3Writer::new(self.clone(), draft, state)))
    }

    async fn cut_back(&self, _draft: &Draft) -> Result<(), Error> {
        Ok(())
    }

    async fn put(
        &self,
        location: &Location,
        length: u64,
        bytes: ObjectStream,
    ) -> Result<(), Error> {
        self.fill(location, length, bytes).await
    }

    async fn delete(&self, dead: &[Dead]) -> Vec<Result<(), Error>> {
        self.delete_all(dead).await
    }

    async fn describe(&self, location: &Location) -> Result<Described, Error> {
        match self.bucket().head(&name(location)).await {
            Ok(ObjectMeta { size, last_modified, .. }) => {
                Ok(Described { length: size, changed: UnixSeconds::new(last_modified.timestamp()) })
            }
            Err(failure) => Err(self.explain("looking at", location, failure).await),
        }
    }

    async fn list(&self, shard: u8) -> Result<Listing, Error> {
        let shard = format!("{shard:02x}");
        let (mut found, mut listing) = (self.bucket().list(Some(&shard)), Listing::default());
        while let Some(meta) = found.next().await {
            let meta = match meta {
                Ok(meta) => meta,
                Err(failure) => return Err(self.explain("listing", &nowhere(), failure).await),
            };
            let name = meta.location.filename().unwrap_or_default();
            match name.parse::<Location>().ok().filter(|it| it.as_str().starts_with(&shard)) {
                Some(location) => listing.objects.push(location),
                None => listing.strange.push(meta.location.to_string()),
            }
        }
        Ok(listing)
    }

    async fn free_bytes(&self) -> Result<Option<u64>, Error> {
        Ok(None)
    }

    async fn signed_url(&self, location: &Location) -> Result<Option<String>, Error> {
        match self.bucket().sign(&name(location)).await {
            Ok(url) => Ok(url),
            Err(failure) => Err(self.explain("signing a URL of", location, failure).await),
        }
    }

    fn room(&self) -> Option<&Room> {
        Some(&self.0.room)
    }
}
