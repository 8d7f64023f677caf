//! Backups while the server runs: a snapshot of the database, and every object that it names.
//!
//! An object's location is never used twice, so a backup into a directory that has one adds what is
//! new and trusts what is there. The old backup is whole until the new database takes its place.
//!
//! Where root runs this for somebody else's registry, what is read is read as that user.

use std::{path::PathBuf, time::Instant};

use berth_shared::clock::{Clock, rfc3339};
use serde::Serialize;
use tempfile::TempPath;

use super::{
    blobs::{Blobs, is_there},
    directory::{Description, Directory},
    error::{Error, doing},
    quiet::Quiet,
};
use crate::{
    data::{Home, Objects},
    metadata::{Database, blob::Blob, totals::BlobTotals},
    registry::{event::Events, gc::millis},
    storage::Location,
};

/// What was backed up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename = "backed-up")]
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

/// Backs up the registry at `home` into `to`, whether a server runs or not.
///
/// # Errors
/// When `to` is something else than a backup, and when a file, the database or the server fails.
pub async fn backup(
    home: Home,
    to: PathBuf,
    clock: Clock,
    events: Events,
) -> Result<Summary, Error> {
    let started = Instant::now();
    let mut quiet = Quiet::over(&home, &clock).await?;
    let data = &home.data;
    let (directory, _lock) = Directory::to_write(&to)?;
    // Removed at the end, where it has not become the backup's by then.
    let new = TempPath::try_from_path(directory.new_database(data)?);
    let new = new.map_err(doing("making the database of", &to))?;
    let made = rfc3339(clock.now());
    let database = home.open_beside().await?;
    let objects = Objects::beside(&home, &database).await?;
    database.snapshot(new.to_path_buf()).await?;
    let snapshot = Database::open_at_rest(new.to_path_buf()).await?;
    // An upload cannot go on in another store.
    snapshot.forget_uploads().await?;
    let mut blobs = Blobs::new(snapshot, directory.copying_from(objects)?, events).await?;
    let mut done = Summary {
        repositories: blobs.database.count_repositories().await?,
        manifests: blobs.database.count_manifests().await?,
        ..Summary::default()
    };
    if done.manifests == 0 && directory.manifests() > 0 {
        return Err(Error::Refused(format!(
            "the registry is empty, and the backup in {} is not: name another directory",
            to.display()
        )));
    }
    while let Some(page) = blobs.next().await? {
        for blob in &page {
            back_up(&mut blobs, blob, &mut quiet, &mut done).await?;
        }
        blobs.progress().await?;
    }
    let superfluous = superfluous(&blobs).await?;
    let description = Description::new(made, done.repositories, done.manifests, blobs.total);
    blobs.database.close().await;
    directory.commit(&new, &description)?;
    for location in &superfluous {
        blobs.objects.remove(location).await?;
        done.removed += 1;
    }
    for shard in 0..=u8::MAX {
        blobs.objects.remove_partial(shard).await?;
    }
    quiet.end().await;
    let BlobTotals { count, bytes, damaged: missing } = blobs.done;
    Ok(Summary { blobs: count, bytes, missing, millis: millis(started.elapsed()), ..done })
}

async fn back_up(
    blobs: &mut Blobs,
    blob: &Blob,
    quiet: &mut Quiet,
    done: &mut Summary,
) -> Result<(), Error> {
    blobs.done.count += 1;
    blobs.done.bytes += blob.size;
    let objects = &blobs.objects;
    if is_there(objects.target(), blob).await? {
        return Ok(());
    }
    if is_there(objects.source(), blob).await? && objects.take(blob).await? {
        done.added += 1;
        done.added_bytes += blob.size;
        return Ok(());
    }
    if !quiet.lasts() {
        let message = "the server stopped meanwhile: start the backup again";
        return Err(Error::Refused(message.to_owned()));
    }
    let what = "its object is missing, too short or not readable, so it is not in the backup";
    blobs.damaged(blob, what).await
}

/// The objects that the snapshot does not name.
async fn superfluous(blobs: &Blobs) -> Result<Vec<Location>, Error> {
    let mut found = Vec::new();
    for shard in 0..=u8::MAX {
        let objects = blobs.objects.target().list(shard).await?.objects;
        found.extend(blobs.database.owned_in(shard).await?.orphans(objects));
    }
    Ok(found)
}
