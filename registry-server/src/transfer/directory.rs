//! The directory that a backup lies in: `registry.db`, `objects/`, and `backup.json`, which says
//! what it is. What is under way has names of its own.
//!
//! Where root runs this, whoever owns the directory reads and writes in it.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use berth_shared::{
    files::{
        SMALL_FILE_BYTES_MAX, UNFINISHED, open_regular, read_at_most, rename, replace, try_lock,
    },
    unix_owner::{Identity, Place},
};
use serde::{Deserialize, Serialize};

use super::{
    copying::Copying,
    error::{Error, doing},
};
use crate::{
    data::Objects,
    metadata::totals::BlobTotals,
    storage::disk::{self, DiskStore, copy},
};

/// The form that this program writes, and the newest that it reads.
const FORMAT: u32 = 1;

/// Says that a directory is a backup, and which.
const DESCRIPTION: &str = "backup.json";

/// Held by whoever writes. A directory with it is one of ours, though no backup be whole in it.
const LOCK: &str = "backup.lock";

/// Where objects lie, here as in a data directory.
const OBJECTS: &str = "objects";

/// The database of a backup that is not whole yet.
const NEW: &str = "registry.db.new";

/// What a backup says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Description {
    pub(super) format: u32,
    /// The version of the program that wrote it.
    pub(super) version: String,
    /// When it was made, in RFC 3339.
    pub(super) made: String,
    pub(super) repositories: u64,
    pub(super) manifests: u64,
    pub(super) blobs: u64,
    pub(super) bytes: u64,
}

impl Description {
    pub(super) fn new(made: String, repositories: u64, manifests: u64, all: BlobTotals) -> Self {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let (blobs, bytes) = (all.count, all.bytes);
        Self { format: FORMAT, version, made, repositories, manifests, blobs, bytes }
    }
}

/// A directory with a backup in it, or about to have one.
#[derive(Debug)]
pub(super) struct Directory {
    place: Place,
}

impl Directory {
    /// The directory to read from, and what it says of itself.
    pub(super) fn to_read(root: &Path) -> Result<(Self, Description), Error> {
        let no_backup = || {
            let root = root.display();
            Error::Refused(format!("{root} is no backup: it has no {DESCRIPTION}"))
        };
        let place = Place::open(root)?.ok_or_else(no_backup)?;
        let path = place.path().join(DESCRIPTION);
        let bytes = match place.within(|| read_at_most(&path, SMALL_FILE_BYTES_MAX)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(no_backup()),
            bytes => bytes.map_err(doing("reading", &path))?,
        };
        // A later form may have other fields: its number is looked at before the rest.
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let broken = |error: serde_json::Error| doing("reading", &path)(error.into());
        let Format { format } = serde_json::from_slice(&bytes).map_err(broken)?;
        if format > FORMAT {
            return Err(Error::Refused(format!(
                "{} was written by a newer version of Berth: use that version, or newer",
                root.display()
            )));
        }
        let description = serde_json::from_slice(&bytes).map_err(broken)?;
        Ok((Self { place }, description))
    }

    /// The directory to write to, made where it is missing, and this process's alone as long as
    /// the file is open.
    pub(super) fn to_write(root: &Path) -> Result<(Self, File), Error> {
        let what = "a backup: name a directory of its own";
        let place = take_up(root, &[DESCRIPTION, LOCK], what)?;
        let path = place.path().join(LOCK);
        let lock = place.within(|| try_lock(&path)).map_err(doing("locking", &path))?;
        let lock = lock.ok_or_else(|| {
            let root = root.display();
            Error::Refused(format!("another backup to {root} is under way"))
        })?;
        place.within(|| remove_unfinished(place.path())).map_err(doing("tidying", root))?;
        Ok((Self { place }, lock))
    }

    /// How many manifests the backup has that lies here, if one does.
    pub(super) fn manifests(&self) -> u64 {
        let path = self.place.path().join(DESCRIPTION);
        let bytes = self.place.within(|| read_at_most(&path, SMALL_FILE_BYTES_MAX)).ok();
        let description = bytes.and_then(|it| serde_json::from_slice::<Description>(&it).ok());
        description.map_or(0, |it| it.manifests)
    }

    pub(super) fn database(&self) -> PathBuf {
        self.place.path().join("registry.db")
    }

    /// Where the next backup's database is made: in this directory, or where the one who reads the
    /// data directory `data` cannot write here, in that one. What an earlier attempt left is
    /// removed.
    pub(super) fn new_database(&self, data: &Path) -> Result<PathBuf, Error> {
        match self.place.is_reached_by_name() {
            true => fresh(self.place.path().join(NEW)),
            false => fresh(data.join("registry.db.backup")),
        }
    }

    /// What backs up the objects of a registry. Every directory that it needs is made.
    pub(super) fn copying_from(&self, objects: Objects) -> Result<Copying, Error> {
        let here = self.place.path().join(OBJECTS);
        let made = self.place.within(|| DiskStore::open(&here).map(drop));
        made.map_err(doing("making", &here))?;
        Ok(match objects {
            Objects::Disk(source) => Copying::Linking(disk::Copying::new(source, self.store())),
            Objects::S3(source) => {
                Copying::Streaming { source: Arc::new(source), target: Arc::new(self.store()) }
            }
        })
    }

    /// What restores the objects to where a registry is to have them. A directory is made.
    pub(super) fn copying_to(&self, data: &Path, objects: Objects) -> Result<Copying, Error> {
        Ok(match objects {
            Objects::Disk(target) => {
                let target = target.worked_in_by(Identity::of(data)?);
                Copying::Linking(disk::Copying::new(self.store(), target))
            }
            Objects::S3(target) => {
                Copying::Streaming { source: Arc::new(self.store()), target: Arc::new(target) }
            }
        })
    }

    fn store(&self) -> DiskStore {
        DiskStore::at(&self.place.path().join(OBJECTS)).worked_in_by(self.place.identity())
    }

    /// Copies the database to a new file, which this thread's user makes.
    pub(super) fn copy_database(&self, to: &Path) -> Result<(), Error> {
        let path = self.database();
        let from = self.place.within(|| open_regular(&path)).map_err(doing("reading", &path))?;
        copy(&from, to).map_err(doing("copying to", to))
    }

    /// Puts the new database in the place of the old: from here on the directory holds the new
    /// backup.
    pub(super) fn commit(&self, new: &Path, description: &Description) -> Result<(), Error> {
        // It is what its user may read, whatever has been put in its place.
        let file = open_regular(new).map_err(doing("reading", new))?;
        let _assumed =
            self.place.identity().assume().map_err(doing("writing in", self.place.path()))?;
        let here = self.place.path().join(NEW);
        if here != new {
            copy(&file, &fresh(here.clone())?).map_err(doing("copying to", &here))?;
        }
        put(&here, &self.database())?;
        let path = self.place.path().join(DESCRIPTION);
        let text = serde_json::to_string_pretty(description).map_err(io::Error::from);
        let written = text.and_then(|text| replace(&path, format!("{text}\n").as_bytes()));
        written.map_err(doing("writing", &path))
    }
}

/// Removes what those left that were killed: nobody else writes here.
fn remove_unfinished(root: &Path) -> io::Result<()> {
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(UNFINISHED.as_bytes()) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Makes a directory, or takes up one that is empty or has one of the files `ours`.
pub(super) fn take_up(root: &Path, ours: &[&str], what: &str) -> Result<Place, Error> {
    let place = Place::make(root)?;
    let is_ours = ours.iter().any(|name| place.has(name));
    let entry = place.within(|| fs::read_dir(place.path())?.next().transpose());
    if !is_ours && entry.map_err(doing("reading", root))?.is_some() {
        return Err(Error::Refused(format!("{} is neither empty nor {what}", root.display())));
    }
    Ok(place)
}

/// The path of a database about to be made: nothing is there.
pub(super) fn fresh(path: PathBuf) -> Result<PathBuf, Error> {
    for suffix in ["", "-journal"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        match fs::remove_file(&name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(doing("removing", Path::new(&name))(error));
            }
            _ => {}
        }
    }
    Ok(path)
}

/// Gives a durable file its name, durably.
pub(super) fn put(from: &Path, to: &Path) -> Result<(), Error> {
    rename(from, to).map_err(doing("putting into place", to))
}
