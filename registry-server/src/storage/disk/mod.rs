//! Objects as files: `objects/<2 hex>/<32 hex>` below the data directory.
//!
//! Reads and writes run on the blocking pool a piece at a time, so that a slow client holds no
//! thread. What the system holds in memory is read at once: what a client asks for, and the first
//! piece of anything.

mod cached;
mod copying;
mod pieces;
mod taking_in;
mod writer;

use std::{
    fs::{self, File},
    io,
    ops::Range,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use berth_shared::{
    clock::UnixSeconds,
    files::{open_regular, sync_directory},
    unix_owner::Identity,
};
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::task::{JoinHandle, spawn_blocking};

pub(crate) use copying::{Copying, copy};
pub use taking_in::How;
pub(crate) use taking_in::TakingIn;

use super::{
    Dead, Described, Draft, Error, Listing, Location, ObjectStream, ObjectWriter, Shares, Store,
    room::Room,
};
use cached::Cached;
use pieces::{Pieces, Reader, held, read_piece, size};
use writer::DiskWriter;

/// Objects in files below one directory.
#[derive(Debug, Clone)]
pub struct DiskStore {
    root: Arc<Path>,
    durable: bool,
    identity: Identity,
    /// Where the process works as itself: else a file is to be opened as somebody else.
    cached: Option<Arc<Cached>>,
}

impl DiskStore {
    /// Opens the store in `root`, making its directories where they are missing.
    ///
    /// # Errors
    /// When a directory cannot be made or synced.
    pub fn open(root: &Path) -> io::Result<Self> {
        fs::create_dir_all(root)?;
        for first in 0..=u8::MAX {
            let directory = root.join(format!("{first:02x}"));
            match fs::create_dir(&directory) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
        }
        sync_directory(root)?;
        // The names of the root and of the data directory must last too. What lies above that need
        // not be ours to open, nor be a directory that lasts: a descriptor's place is none.
        for above in root.ancestors().skip(1).take(2) {
            match File::open(above).map(|above| above.sync_all()) {
                Ok(Err(error)) if error.kind() != io::ErrorKind::InvalidInput => return Err(error),
                _ => {}
            }
        }
        Ok(Self::at(root))
    }

    /// The same store, which leaves it to the system when bytes reach the disk.
    #[must_use]
    pub fn without_durability(self) -> Self {
        Self { durable: false, ..self }
    }

    /// The store in `root`, as it is there.
    #[must_use]
    pub fn at(root: &Path) -> Self {
        let cached = Some(Arc::new(Cached::new()));
        Self { root: root.into(), durable: true, identity: Identity::UNCHANGED, cached }
    }

    /// The same store, in which somebody else works.
    #[must_use]
    pub fn worked_in_by(self, identity: Identity) -> Self {
        Self { identity, cached: None, ..self }
    }

    fn path(&self, location: &Location) -> PathBuf {
        self.root.join(&location.as_str()[..2]).join(location.as_str())
    }

    /// Deletes an object; one that is missing is deleted already.
    pub(crate) async fn remove(&self, location: &Location) -> Result<(), Error> {
        self.run("deleting", location, |path| match fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        })
        .await
    }

    /// Opens an object of at least `end` bytes and reads a first piece, if all of that is in memory.
    fn read_cached(
        &self,
        location: &Location,
        start: u64,
        length: u64,
        end: u64,
    ) -> Option<(File, Vec<u8>)> {
        let cached = self.cached.as_ref()?;
        let file = cached.open(&self.path(location), end)?;
        let first = cached.read(&file, start, size(length))?;
        (first.len() as u64 == length).then_some((file, first))
    }

    /// Runs file work on the blocking pool and says of a failure what was being done.
    async fn run<T: Send + 'static>(
        &self,
        operation: &'static str,
        location: &Location,
        work: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        let (path, identity) = (self.path(location), self.identity);
        let done = on_disk(operation, move || identity.within(|| work(&path)));
        ended(done).await.map_err(|error| explain(operation, location, error))
    }

    /// The same on the directory of the store as a whole.
    async fn on_root<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        let (root, identity) = (Arc::clone(&self.root), self.identity);
        let done = on_disk(operation, move || identity.within(|| work(&root)));
        // Stands for no object.
        let location = Location("0".repeat(32));
        ended(done).await.map_err(|source| Error::Io { operation, location, source })
    }
}

/// Does file work on the blocking pool. The event lets tests count what a request costs.
fn on_disk<T: Send + 'static>(
    operation: &'static str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> JoinHandle<io::Result<T>> {
    tracing::trace!(target: "berth::storage", operation);
    spawn_blocking(work)
}

/// What became of file work.
async fn ended<T>(work: JoinHandle<io::Result<T>>) -> io::Result<T> {
    work.await.map_err(io::Error::other)?
}

fn explain(operation: &'static str, location: &Location, source: io::Error) -> Error {
    match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof => Error::NotFound(location.clone()),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::Full,
        _ => Error::Io { operation, location: location.clone(), source },
    }
}

#[async_trait]
impl Store for DiskStore {
    fn is_local(&self) -> bool {
        true
    }

    async fn length(&self, location: &Location) -> Result<u64, Error> {
        self.run("looking at", location, |path| match fs::symlink_metadata(path)? {
            meta if meta.is_file() => Ok(meta.len()),
            _ => Err(io::ErrorKind::NotFound.into()),
        })
        .await
    }

    async fn read(
        &self,
        shares: Option<&Shares>,
        location: &Location,
        Range { start, end }: Range<u64>,
    ) -> Result<ObjectStream, Error> {
        let reader = match shares {
            Some(shares) => Reader::client(shares.clone(), shares.file().await?),
            None => Reader::Server,
        };
        let first_length = (end - start).min(reader.piece_bytes(true));
        let room = reader.room_to_begin(first_length).await?;
        let (file, first) = match self.read_cached(location, start, first_length, end) {
            Some((file, first)) => (file, held(first, room)),
            None => {
                let read = move |path: &Path| {
                    let file = open_regular(path)?;
                    if file.metadata()?.len() < end {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    let first = read_piece(&file, start, first_length, end, room)?;
                    Ok((file, first))
                };
                self.run("reading", location, read).await?
            }
        };
        let (location, file, cached) = (location.clone(), Arc::new(file), self.cached.clone());
        let at = start + first_length;
        let rest = Pieces { location, file, cached, reader, at, end };
        let rest = stream::unfold(rest, Pieces::next);
        Ok(stream::once(async move { Ok(first) }).chain(rest).boxed())
    }

    fn is_sealed(&self, _draft: &Draft) -> bool {
        false
    }

    fn reserve(&self, _draft: &Draft) -> Result<Option<Draft>, Error> {
        Ok(None)
    }

    async fn open(&self, draft: Draft) -> Result<Box<dyn ObjectWriter>, Error> {
        Ok(Box::new(DiskWriter::new(self.clone(), draft)))
    }

    async fn cut_back(&self, draft: &Draft) -> Result<(), Error> {
        let length = draft.received;
        let cut = move |path: &Path| writer::open_at(path, length, false).map(drop);
        match self.run("cutting back", &draft.location, cut).await {
            Err(Error::NotFound(_)) => Ok(()),
            result => result,
        }
    }

    async fn put(
        &self,
        location: &Location,
        _length: u64,
        mut bytes: ObjectStream,
    ) -> Result<(), Error> {
        let mut writer = Box::new(DiskWriter::new(self.clone(), Draft::of(location.clone(), 0)));
        while let Some(piece) = bytes.try_next().await? {
            writer.append(vec![piece]).await?;
        }
        writer.finish().await.map(drop)
    }

    async fn delete(&self, dead: &[Dead]) -> Vec<Result<(), Error>> {
        let mut results = Vec::with_capacity(dead.len());
        for Dead { location, .. } in dead {
            results.push(self.remove(location).await);
        }
        results
    }

    async fn describe(&self, location: &Location) -> Result<Described, Error> {
        self.run("looking at", location, |path| {
            let meta = fs::symlink_metadata(path)?;
            // Not the time of the content: a hard link to an old file is young.
            Ok(Described { length: meta.len(), changed: UnixSeconds::new(meta.ctime()) })
        })
        .await
    }

    async fn list(&self, shard: u8) -> Result<Listing, Error> {
        self.on_root("listing the directory of", move |root| list(root, shard)).await
    }

    fn room(&self) -> Option<&Room> {
        None
    }

    async fn free_bytes(&self) -> Result<Option<u64>, Error> {
        let stat = |root: &Path| Ok(nix::sys::statvfs::statvfs(root)?);
        let stat = self.on_root("asking for the free space of", stat).await?;
        Ok(Some(stat.blocks_available() * stat.fragment_size()))
    }
}

fn list(root: &Path, shard: u8) -> io::Result<Listing> {
    let (shard, mut listing) = (format!("{shard:02x}"), Listing::default());
    let directory = root.join(&shard);
    for entry in fs::read_dir(&directory)? {
        let name = entry?.file_name();
        let location = name.to_str().and_then(|name| name.parse::<Location>().ok());
        match location.filter(|it| it.as_str().starts_with(&shard)) {
            Some(location) => listing.objects.push(location),
            None => listing.strange.push(directory.join(name).display().to_string()),
        }
    }
    Ok(listing)
}
