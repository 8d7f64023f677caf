//! Backups while the server runs: a snapshot of the database, and every object that it names.
//!
//! An object's location is never used twice, so a backup into a directory that has one adds what is
//! new and trusts what is there. The old backup is whole until the new database takes its place.
//!
//! Where root runs this for somebody else's registry, what is read is read as that user.

use std::{fs, path::PathBuf, time::Instant};

use berth_shared::{
    clock::{Clock, rfc3339},
    owner::Identity,
};
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tempfile::TempPath;

use super::{
    directory::{Description, Directory},
    error::{Error, doing},
    quiet::Quiet,
};
use crate::{
    metadata::{Database, blob::Blob, totals::BlobTotals, verification::Checked},
    registry::{
        self,
        event::{Event, Events},
    },
    storage::{self, Location, Store, disk::DiskStore},
};

/// Blobs that are read from the database at once.
const PAGE: u32 = 256;

/// Images that a report names per blob.
const IMAGES_MAX: u32 = 20;

/// What was backed up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Repositories in the backup.
    pub repositories: u64,
    /// Manifests in the backup.
    pub manifests: u64,
    /// Blobs in the backup.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Objects that were not in the directory before.
    pub added: u64,
    /// Their bytes.
    pub added_bytes: u64,
    /// Objects of earlier backups that nothing in this one needs.
    pub removed: u64,
    /// Blobs whose object is missing in the store or too short.
    pub missing: u64,
    /// How long it took, in milliseconds.
    pub millis: u64,
}

/// Backs up the data directory `data` into `to`, whether a server runs or not.
///
/// # Errors
/// When `to` is something else than a backup, and when a file, the database or the server fails.
pub fn backup(
    data: PathBuf,
    to: PathBuf,
    clock: Clock,
    events: Events,
) -> BoxFuture<'static, Result<Summary, Error>> {
    Box::pin(async move {
        let started = Instant::now();
        let quiet = Quiet::over(&data).await?;
        let (directory, _lock) = Directory::to_write(&to)?;
        // Removed at the end, where it has not become the backup's by then.
        let new = TempPath::try_from_path(directory.new_database(&data)?);
        let new = new.map_err(doing("making the database of", &to))?;
        let made = rfc3339(clock.now());
        Database::open_beside(&data.join("registry.db")).await?.snapshot(new.to_path_buf()).await?;
        let snapshot = Database::open_at_rest(new.to_path_buf()).await?;
        // An upload cannot go on in another store.
        snapshot.forget_uploads().await?;
        let mut backup = Backup {
            total: snapshot.count_blobs().await?,
            snapshot,
            source: DiskStore::at(&data.join("objects")),
            target: directory.new_store()?,
            identity: directory.identity(),
            quiet,
            events,
            done: Summary::default(),
        };
        backup.objects().await?;
        let superfluous = backup.superfluous().await?;
        let description = backup.describe(made).await?;
        backup.snapshot.close().await;
        directory.commit(&new, &description)?;
        backup.remove(superfluous).await?;
        backup.done.millis = registry::gc::millis(started.elapsed());
        Ok(backup.done)
    })
}

struct Backup {
    snapshot: Database,
    source: DiskStore,
    target: DiskStore,
    /// Who works in the directory of the backup.
    identity: Identity,
    quiet: Quiet,
    events: Events,
    total: BlobTotals,
    done: Summary,
}

impl Backup {
    async fn objects(&mut self) -> Result<(), Error> {
        let mut last = Checked::default();
        loop {
            let page = self.snapshot.blobs_after(&last, PAGE).await?;
            let Some(next) = page.next else { break };
            last = next;
            for digest in page.unreadable {
                self.done.missing += 1;
                self.events.problem(format!("blob {digest:?} cannot be read: skipped")).await?;
            }
            for blob in &page.blobs {
                self.object(blob).await?;
            }
            self.progress().await?;
        }
        Ok(self.target.sync().await?)
    }

    async fn object(&mut self, blob: &Blob) -> Result<(), Error> {
        self.done.blobs += 1;
        self.done.bytes += blob.size;
        if length(&self.target, &blob.location).await? == Some(blob.size) {
            return Ok(());
        }
        if length(&self.source, &blob.location).await? != Some(blob.size) {
            return self.missing(blob).await;
        }
        self.target.remove(&blob.location).await?;
        match self.target.take(&self.source, &blob.location).await {
            Err(storage::Error::NotFound(_)) => return self.missing(blob).await,
            taken => taken?,
        }
        self.done.added += 1;
        self.done.added_bytes += blob.size;
        Ok(())
    }

    async fn missing(&mut self, blob: &Blob) -> Result<(), Error> {
        if !self.quiet.lasts() {
            let message = "the server stopped meanwhile: start the backup again";
            return Err(Error::Refused(message.to_owned()));
        }
        self.done.missing += 1;
        let images = self.snapshot.images_with(&blob.digest, None, IMAGES_MAX).await?;
        let what = "its object is missing, too short or not readable, so it is not in the backup"
            .to_owned();
        let digest = blob.digest.clone();
        Ok(self.events.say(Event::Damaged { digest, what, images }).await?)
    }

    async fn describe(&mut self, made: String) -> Result<Description, Error> {
        let repositories = self.snapshot.count_repositories().await?;
        let manifests = self.snapshot.count_manifests().await?;
        (self.done.repositories, self.done.manifests) = (repositories, manifests);
        let BlobTotals { count: blobs, bytes, .. } = self.total;
        Ok(Description { repositories, manifests, blobs, bytes, ..Description::new(made) })
    }

    /// What lies among the objects and the snapshot does not name.
    async fn superfluous(&self) -> Result<Vec<Superfluous>, Error> {
        let mut found = Vec::new();
        for shard in 0..=u8::MAX {
            let listing = self.target.list(shard).await?;
            let orphans = self.snapshot.owned_in(shard).await?.orphans(listing.objects);
            found.extend(orphans.into_iter().map(Superfluous::Object));
            // What a copy that was broken off left behind.
            let partial = listing.strange.into_iter().filter(|it| it.ends_with(".partial"));
            found.extend(partial.map(|path| Superfluous::Partial(path.into())));
        }
        Ok(found)
    }

    async fn remove(&mut self, superfluous: Vec<Superfluous>) -> Result<(), Error> {
        for it in superfluous {
            match it {
                Superfluous::Object(location) => {
                    self.target.remove(&location).await?;
                    self.done.removed += 1;
                }
                Superfluous::Partial(path) => {
                    let removed = self.identity.within(|| fs::remove_file(&path));
                    removed.map_err(doing("removing", &path))?;
                }
            }
        }
        Ok(())
    }

    async fn progress(&self) -> Result<(), Error> {
        let BlobTotals { count: total, bytes: bytes_total, .. } = self.total;
        let (done, bytes_done) = (self.done.blobs, self.done.bytes);
        Ok(self.events.say(Event::Progress { done, total, bytes_done, bytes_total }).await?)
    }
}

/// What a backup has no use for any more.
enum Superfluous {
    Object(Location),
    Partial(PathBuf),
}

/// The length of an object; `None` when there is none.
pub(super) async fn length(
    store: &DiskStore,
    location: &Location,
) -> Result<Option<u64>, storage::Error> {
    match store.length(location).await {
        Err(storage::Error::NotFound(_)) => Ok(None),
        length => length.map(Some),
    }
}
