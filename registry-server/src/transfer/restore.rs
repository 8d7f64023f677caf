//! Restoring a backup to where no registry is: into a data directory, its rows there too or to a server.
//!
//! Every object is hashed. The database comes last, so that a server finds either nothing or the
//! whole; what was broken off is taken up again by the next attempt.
//!
//! Where root runs this, the data directory is written by its owner, and the backup read by its own.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::Instant,
};

use berth_shared::{
    clock::Clock,
    files::{SMALL_FILE_BYTES_MAX, read_at_most, replace},
};
use futures_util::StreamExt;
use serde::Serialize;

use super::{
    blobs::{Blobs, is_there},
    directory::{Description, Directory, fresh, put},
    error::{Error, doing},
};
use crate::{
    data::{ENDING_TIME, Home, Objects, RESTORING, lock},
    metadata::{Database, blob::Blob, totals::BlobTotals},
    registry::{self, event::Events, hash::Hasher},
    storage::{Store, random_hex},
};

/// How the restored registry is called, until its rows say so.
const RESTORING_ID: &str = "registry.db.restoring.id";

/// What was restored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename = "restored")]
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

/// Restores the backup in `from` to `home`.
///
/// # Errors
/// When `from` is no backup or a newer one, `home` holds a registry or a server runs on it, and
/// when a file or the database fails. Damaged blobs are no error: they are told and marked.
pub async fn restore(
    home: Home,
    from: PathBuf,
    clock: Clock,
    events: Events,
) -> Result<Summary, Error> {
    let started = Instant::now();
    let (directory, description) = Directory::to_read(&from)?;
    let data = &home.data;
    let _lock = take_data(data)?;
    let server = home.open_empty().await?;
    let _alone = home.take_database(ENDING_TIME).await?;
    let new = data.join(RESTORING);
    let goes_on = new.exists();
    let opened = async {
        let rows = take_rows(&directory, &description, &from, fresh(new.clone())?).await?;
        let identity = identity(&data.join(RESTORING_ID))?;
        let owner = server.as_ref().unwrap_or(&rows);
        Ok((Objects::to_fill(&home, owner, identity).await?, rows))
    };
    let opened: Result<_, Error> = opened.await;
    if opened.is_err() && !goes_on && new.exists() {
        // Nothing of it is here, and what is here may be served.
        fs::remove_file(&new).map_err(doing("removing", &new))?;
    }
    let (objects, rows) = opened?;
    let mut blobs = Blobs::new(rows, directory.copying_to(data, objects)?, events).await?;
    let Description { made, repositories, manifests, .. } = description;
    while let Some(page) = blobs.next().await? {
        for blob in &page {
            restore_blob(&mut blobs, blob, &clock).await?;
            blobs.progress().await?;
        }
    }
    if let Some(server) = &server {
        server.fill(&blobs.database).await?;
    }
    blobs.database.close().await;
    match server {
        None => put(&new, &data.join("registry.db"))?,
        Some(_) => fs::remove_file(&new).map_err(doing("removing", &new))?,
    }
    let _ = fs::remove_file(data.join(RESTORING_ID));
    let BlobTotals { count, bytes, damaged } = blobs.done;
    let millis = registry::gc::millis(started.elapsed());
    Ok(Summary { made, repositories, manifests, blobs: count, bytes, damaged, millis })
}

/// The same for every attempt at one restore, so that each knows what the one before put into a bucket.
fn identity(file: &Path) -> Result<String, Error> {
    match read_at_most(file, SMALL_FILE_BYTES_MAX) {
        Ok(identity) => Ok(String::from_utf8_lossy(identity.trim_ascii()).into_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let identity = random_hex()?;
            replace(file, identity.as_bytes()).map_err(doing("writing", file))?;
            Ok(identity)
        }
        Err(error) => Err(doing("reading", file)(error)),
    }
}

/// Copies the backup's rows to `to`, if they are what it was made with.
async fn take_rows(
    directory: &Directory,
    description: &Description,
    from: &Path,
    to: PathBuf,
) -> Result<Database, Error> {
    directory.copy_database(&to)?;
    let database = Database::open_at_rest(to).await?;
    let path = from.join("registry.db");
    let path = path.display();
    if let Some(found) = database.integrity().await? {
        return Err(Error::Refused(format!("{path} is damaged: {found}")));
    }
    if let Some(found) = database.foreign_schema().await? {
        return Err(Error::Refused(format!("{path} is not as Berth makes it: it has {found}")));
    }
    let has = [
        database.count_repositories().await?,
        database.count_manifests().await?,
        database.count_blobs().await?.count,
    ];
    let says = [description.repositories, description.manifests, description.blobs];
    if has != says {
        return Err(Error::Refused(format!(
            "{path} is not the one that the backup was made with: it has {has:?} repositories, \
             manifests and blobs, where there were {says:?}"
        )));
    }
    Ok(database)
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

async fn restore_blob(blobs: &mut Blobs, blob: &Blob, clock: &Clock) -> Result<(), Error> {
    blobs.done.count += 1;
    blobs.done.bytes += blob.size;
    let (database, objects) = (&blobs.database, &blobs.objects);
    let mut what = "its object is missing in the backup";
    // Of an attempt before this one.
    let mut is_right = is_sound(objects.target(), blob).await?;
    if !is_right && objects.take(blob).await? {
        is_right = is_sound(objects.target(), blob).await?;
        what = "its object has other bytes in the backup";
    }
    if !is_right {
        // It is not served then, and a push of the same digest takes its place.
        database.record_damage(blob, clock.now()).await?;
        return blobs.damaged(blob, what).await;
    }
    if blob.damaged {
        // It was marked, and may have had sound bytes since.
        database.repair(blob, &blob.location, clock.now()).await?;
    }
    Ok(())
}

/// Whether the blob's object is there and has the right bytes.
async fn is_sound(store: &dyn Store, blob: &Blob) -> Result<bool, Error> {
    if !is_there(store, blob).await? {
        return Ok(false);
    }
    let mut object = store.read(None, &blob.location, 0..blob.size).await?;
    let mut hasher = Hasher::new(blob.digest.algorithm());
    while let Some(piece) = object.next().await {
        hasher.update(&[piece?]);
    }
    Ok(hasher.finish() == blob.digest)
}
