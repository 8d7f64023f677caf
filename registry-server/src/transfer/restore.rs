//! Restoring a backup into a data directory that has no registry.
//!
//! Every object is hashed. The database comes last, so that a server finds either nothing or the
//! whole; what was broken off is taken up again by the next attempt.
//!
//! Where root runs this, the data directory is written by its owner, and the backup read by its own.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    time::Instant,
};

use berth_shared::{clock::Clock, owner::Identity};
use futures_util::{StreamExt, future::BoxFuture};
use serde::{Deserialize, Serialize};

use super::{
    backup::length,
    directory::{Directory, fresh, put},
    error::{Error, doing},
};
use crate::{
    data::lock,
    metadata::{Database, blob::Blob, totals::BlobTotals, verification::Checked},
    registry::{
        self,
        event::{Event, Events},
        hash::Hasher,
    },
    storage::{self, Store, disk::DiskStore},
};

/// Blobs that are read from the database at once.
const PAGE: u32 = 256;

/// Images that a report names per blob.
const IMAGES_MAX: u32 = 20;

/// What was restored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// When the backup was made, in RFC 3339.
    pub made: String,
    /// Repositories.
    pub repositories: u64,
    /// Manifests.
    pub manifests: u64,
    /// Blobs.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Blobs that are missing in the backup or are not what their digest says.
    pub damaged: u64,
    /// How long it took, in milliseconds.
    pub millis: u64,
}

/// Restores the backup in `from` into the data directory `data`.
///
/// # Errors
/// When `from` is no backup or a newer one, `data` holds a registry or a server runs on it, and
/// when a file or the database fails. Damaged blobs are no error: they are told and marked.
pub fn restore(
    data: PathBuf,
    from: PathBuf,
    clock: Clock,
    events: Events,
) -> BoxFuture<'static, Result<Summary, Error>> {
    Box::pin(async move {
        let started = Instant::now();
        let (directory, description) = Directory::to_read(&from)?;
        let _lock = take_data(&data)?;
        let new = fresh(data.join("registry.db.restoring"))?;
        directory.copy_database(&new)?;
        let database = Database::open_at_rest(new.clone()).await?;
        let path = from.join("registry.db");
        if let Some(found) = database.integrity().await? {
            return Err(Error::Refused(format!("{} is damaged: {found}", path.display())));
        }
        if let Some(found) = database.foreign_schema().await? {
            let path = path.display();
            return Err(Error::Refused(format!("{path} is not as Berth makes it: it has {found}")));
        }
        let objects = data.join("objects");
        let target = DiskStore::open(&objects).map_err(doing("making", &objects))?;
        let repositories = database.count_repositories().await?;
        let manifests = database.count_manifests().await?;
        let mut restoring = Restoring {
            source: directory.store(),
            target: target.worked_in_by(Identity::of(&data)?),
            total: database.count_blobs().await?,
            database,
            clock,
            events,
            done: Summary { made: description.made, repositories, manifests, ..Summary::default() },
        };
        restoring.objects().await?;
        restoring.database.close().await;
        put(&new, &data.join("registry.db"))?;
        restoring.done.millis = registry::gc::millis(started.elapsed());
        Ok(restoring.done)
    })
}

/// Makes the data directory this process's alone, if no registry is in it.
fn take_data(data: &Path) -> Result<File, Error> {
    if !data.exists() {
        fs::create_dir_all(data).map_err(doing("making", data))?;
    }
    let lock = lock(data)?;
    // SQLite would take a journal that is left over for one of the restored database.
    for name in ["registry.db", "registry.db-wal", "registry.db-journal"] {
        let path = data.join(name);
        if path.exists() {
            return Err(Error::Refused(format!(
                "a registry is there already ({}): move registry.db* and objects away, or name \
                 another data directory in the configuration",
                path.display()
            )));
        }
    }
    Ok(lock)
}

struct Restoring {
    source: DiskStore,
    target: DiskStore,
    database: Database,
    clock: Clock,
    events: Events,
    total: BlobTotals,
    done: Summary,
}

impl Restoring {
    async fn objects(&mut self) -> Result<(), Error> {
        let mut last = Checked::default();
        loop {
            let page = self.database.blobs_after(&last, PAGE).await?;
            let Some(next) = page.next else { break };
            last = next;
            for digest in page.unreadable {
                self.done.damaged += 1;
                self.events.problem(format!("blob {digest:?} cannot be read: skipped")).await?;
            }
            for blob in &page.blobs {
                self.blob(blob).await?;
                self.progress().await?;
            }
        }
        Ok(self.target.sync().await?)
    }

    async fn blob(&mut self, blob: &Blob) -> Result<(), Error> {
        self.done.blobs += 1;
        self.done.bytes += blob.size;
        // Of an attempt before this one.
        if is_sound(&self.target, blob).await? {
            return self.found_sound(blob).await;
        }
        self.target.remove(&blob.location).await?;
        let what = match self.target.take(&self.source, &blob.location).await {
            Err(storage::Error::NotFound(_)) => "its object is missing in the backup",
            Err(error) => return Err(error.into()),
            Ok(()) if is_sound(&self.target, blob).await? => return self.found_sound(blob).await,
            Ok(()) => "its object has other bytes in the backup",
        };
        self.found_damaged(blob, what).await
    }

    /// A blob that was marked as damaged may have sound bytes by now.
    async fn found_sound(&self, blob: &Blob) -> Result<(), Error> {
        if blob.damaged {
            self.database.repair(blob, &blob.location, self.clock.now()).await?;
        }
        Ok(())
    }

    /// Marks the blob, so that it is not served and a push of the same digest takes its place.
    async fn found_damaged(&mut self, blob: &Blob, what: &str) -> Result<(), Error> {
        self.done.damaged += 1;
        let images = self.database.images_with(&blob.digest, None, IMAGES_MAX).await?;
        let (digest, what) = (blob.digest.clone(), what.to_owned());
        self.database.record_damage(blob, self.clock.now()).await?;
        Ok(self.events.say(Event::Damaged { digest, what, images }).await?)
    }

    async fn progress(&self) -> Result<(), Error> {
        let BlobTotals { count: total, bytes: bytes_total, .. } = self.total;
        let (done, bytes_done) = (self.done.blobs, self.done.bytes);
        Ok(self.events.say(Event::Progress { done, total, bytes_done, bytes_total }).await?)
    }
}

/// Whether the blob's object is there and has the right bytes.
async fn is_sound(store: &DiskStore, blob: &Blob) -> Result<bool, Error> {
    if length(store, &blob.location).await? != Some(blob.size) {
        return Ok(false);
    }
    let mut object = store.read(&blob.location, 0, blob.size).await?;
    let mut hasher = Hasher::new(blob.digest.algorithm());
    while let Some(piece) = object.next().await {
        hasher.update(&[piece?]);
    }
    Ok(hasher.finish() == blob.digest)
}
