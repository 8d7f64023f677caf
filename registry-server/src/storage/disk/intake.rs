//! Files from outside that become objects: of an old registry, of a backup.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    path::Path,
    sync::Arc,
};

use berth_shared::owner::Owner;

use super::{DiskStore, nowhere, on_disk};
use crate::storage::{Error, Location};

/// How a file from outside becomes an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// By a second name; the first stays, and so does the file's owner.
    Link,
    /// By a second name, the first of which is about to go.
    Adopt,
    /// By a copy of its bytes.
    Copy,
}

impl DiskStore {
    /// Makes an object of a file that lies outside the store. For [`How::Copy`] its bytes are durable
    /// afterwards; its entry is made so by [`sync_shards`](Self::sync_shards). The object is given to
    /// `owner`, unless the file outside is to stay as it is.
    ///
    /// # Errors
    /// What the system says; no object is left behind then.
    pub fn take_in(
        &self,
        file: &Path,
        location: &Location,
        how: How,
        owner: Option<Owner>,
    ) -> io::Result<()> {
        let path = self.path(location);
        let taken = match how {
            How::Link => fs::hard_link(file, &path),
            How::Adopt => fs::hard_link(file, &path).and_then(|()| give(&path, owner)),
            How::Copy => copy(file, &path).and_then(|()| give(&path, owner)),
        };
        if taken.is_err() {
            // The failure is told; what cannot be removed is an orphan that collection takes.
            let _ = fs::remove_file(&path);
        }
        taken
    }

    /// Makes the existence of objects durable, with one sync for each of their directories.
    ///
    /// # Errors
    /// When a directory cannot be synced.
    pub fn sync_shards(&self, locations: &[Location]) -> io::Result<()> {
        let shards: BTreeSet<&str> = locations.iter().map(|it| &it.as_str()[..2]).collect();
        shards.into_iter().try_for_each(|shard| File::open(self.root.join(shard))?.sync_all())
    }

    /// Gives the store's directories, but no object in them, to `owner`.
    ///
    /// # Errors
    /// When the system does not let it.
    pub fn give_directories(&self, owner: Owner) -> io::Result<()> {
        give(&self.root, Some(owner))?;
        (0..=u8::MAX)
            .try_for_each(|first| give(&self.root.join(format!("{first:02x}")), Some(owner)))
    }

    /// Makes the objects of another store this one's too: by a hard link, or where that cannot be
    /// by a copy whose bytes are durable. The entry is not durable before [`sync`](Self::sync).
    ///
    /// With an owner the file becomes that one's; a file of somebody else is then copied.
    ///
    /// # Errors
    /// [`Error::NotFound`] when `from` has no such object.
    pub(crate) async fn take(
        &self,
        from: &Self,
        location: &Location,
        owner: Option<Owner>,
    ) -> Result<(), Error> {
        let source = from.path(location);
        self.run("taking over", location, move |to| link_or_copy(&source, to, owner)).await
    }

    /// Makes all entries durable.
    ///
    /// # Errors
    /// When a directory cannot be synced.
    pub(crate) async fn sync(&self) -> Result<(), Error> {
        const OPERATION: &str = "syncing the directories of";
        let root = Arc::clone(&self.root);
        let synced = on_disk(OPERATION, move || {
            for first in 0..=u8::MAX {
                File::open(root.join(format!("{first:02x}")))?.sync_all()?;
            }
            File::open(root)?.sync_all()
        });
        let synced = synced.await.map_err(io::Error::other).and_then(|synced| synced);
        synced.map_err(|source| Error::Io { operation: OPERATION, location: nowhere(), source })
    }
}

fn copy(file: &Path, path: &Path) -> io::Result<()> {
    let mut to = File::create_new(path)?;
    io::copy(&mut File::open(file)?, &mut to)?;
    to.sync_data()
}

fn give(path: &Path, owner: Option<Owner>) -> io::Result<()> {
    owner.map_or(Ok(()), |owner| owner.give(path))
}

/// A file is there whole or not at all.
fn link_or_copy(from: &Path, to: &Path, owner: Option<Owner>) -> io::Result<()> {
    let is_foreign = owner.map(|owner| owner.has(from)).transpose()? == Some(false);
    if !is_foreign {
        match fs::hard_link(from, to) {
            Err(error) if may_copy(error.kind()) => {}
            linked => return linked,
        }
    }
    let partial = to.with_extension("partial");
    // Of an attempt that was broken off.
    let _ = fs::remove_file(&partial);
    copy(from, &partial)?;
    give(&partial, owner)?;
    fs::rename(&partial, to)
}

/// Whether it was the link that failed, on another file system or one without links, and not the
/// file.
fn may_copy(failure: io::ErrorKind) -> bool {
    use io::ErrorKind::{CrossesDevices, PermissionDenied, TooManyLinks, Unsupported};
    matches!(failure, CrossesDevices | PermissionDenied | TooManyLinks | Unsupported)
}
