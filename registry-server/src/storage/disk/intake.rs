//! Files from outside that become objects: of an old registry, of a backup.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt, fchown},
    path::Path,
    sync::Arc,
};

use berth_shared::{
    files::{open_regular, path_of, sync_directory},
    owner::{Identity, Owner},
};
use nix::{
    fcntl::{AT_FDCWD, AtFlags, OFlag},
    unistd::linkat,
};

use super::{DiskStore, ended, explain, nowhere, on_disk};
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
    /// Makes an object of an open file that lies outside the store. For [`How::Copy`] its bytes are
    /// durable afterwards; its entry is made so by [`sync_shards`](Self::sync_shards). What is
    /// adopted is given to `owner`, the store's, if that is another than root, who runs this.
    ///
    /// # Errors
    /// What the system says; no object is left behind then.
    pub fn take_in(
        &self,
        file: &File,
        location: &Location,
        how: How,
        owner: Option<Owner>,
    ) -> io::Result<()> {
        let path = self.path(location);
        let taken = match how {
            How::Link => link_as_root(file, &path, owner),
            How::Adopt => link_as_root(file, &path, owner).and_then(|()| give(file, owner)),
            How::Copy => copy(file, &path),
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
        shards.into_iter().try_for_each(|shard| sync_directory(&self.root.join(shard)))
    }

    /// Makes the objects of another store this one's too: by a hard link, or where that cannot be
    /// by a copy whose bytes are durable. The entry is not durable before [`sync`](Self::sync).
    ///
    /// Where root runs this, the file is opened by who works in `from`, and is copied where the link
    /// would be somebody else's than who works in this store.
    ///
    /// # Errors
    /// [`Error::NotFound`] when `from` has no such object, or who works in it may not read it.
    pub(crate) async fn take(&self, from: &Self, location: &Location) -> Result<(), Error> {
        const OPERATION: &str = "taking over";
        let (source, reader) = (from.path(location), from.identity);
        let (path, writer) = (self.path(location), self.identity);
        // One after the other, and not one within the other: who reads may be who the thread is.
        let take = move || {
            let file =
                reader.within(|| open_regular(&source)).map_err(|error| match error.kind() {
                    io::ErrorKind::PermissionDenied => io::ErrorKind::NotFound.into(),
                    _ => error,
                })?;
            writer.within(|| link_or_copy(&file, &path, writer))
        };
        let taken = ended(on_disk(OPERATION, take)).await;
        taken.map_err(|error| explain(OPERATION, location, error))
    }

    /// Makes all entries durable.
    ///
    /// # Errors
    /// When a directory cannot be synced.
    pub(crate) async fn sync(&self) -> Result<(), Error> {
        const OPERATION: &str = "syncing the directories of";
        let (root, identity) = (Arc::clone(&self.root), self.identity);
        let sync = move || {
            for first in 0..=u8::MAX {
                sync_directory(&root.join(format!("{first:02x}")))?;
            }
            sync_directory(&root)
        };
        let synced = on_disk(OPERATION, move || identity.within(sync));
        ended(synced).await.map_err(|source| Error::Io {
            operation: OPERATION,
            location: nowhere(),
            source,
        })
    }
}

/// Copies an open file to a new one, durably.
pub(crate) fn copy(mut from: &File, to: &Path) -> io::Result<()> {
    let mut to = File::create_new(to)?;
    io::copy(&mut from, &mut to)?;
    to.sync_all()
}

/// Gives the very file that is open, whatever its name leads to by now.
fn give(file: &File, owner: Option<Owner>) -> io::Result<()> {
    let Some(owner) = owner else { return Ok(()) };
    Identity::of_root().within(|| fchown(file, Some(owner.user), Some(owner.group)))
}

/// Gives an open file a second name, with root's rights, since a file of root's is nobody else's to
/// link. The name goes into the directory that was looked at: one of `owner`'s.
fn link_as_root(file: &File, path: &Path, owner: Option<Owner>) -> io::Result<()> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
    let directory = File::options().read(true).custom_flags(flags.bits()).open(directory)?;
    if owner.is_some_and(|owner| directory.metadata().map_or(true, |it| it.uid() != owner.user)) {
        return Err(io::Error::other("the directory of objects belongs to somebody else"));
    }
    let link = || linkat(AT_FDCWD, &path_of(file), &directory, name, AtFlags::AT_SYMLINK_FOLLOW);
    Identity::of_root().within(|| Ok(link()?))
}

/// A file is there whole or not at all.
fn link_or_copy(file: &File, to: &Path, writer: Identity) -> io::Result<()> {
    let user = file.metadata()?.uid();
    if writer.foreign().is_none_or(|owner| owner.user == user) {
        let follow = AtFlags::AT_SYMLINK_FOLLOW;
        let linked = linkat(AT_FDCWD, &path_of(file), AT_FDCWD, to, follow);
        match linked.map_err(io::Error::from) {
            Err(error) if may_copy(error.kind()) => {}
            linked => return linked,
        }
    }
    let partial = to.with_extension("partial");
    // Of an attempt that was broken off.
    let _ = fs::remove_file(&partial);
    copy(file, &partial)?;
    fs::rename(&partial, to)
}

/// Whether it was the link that failed, on another file system or one without links, and not the
/// file.
fn may_copy(failure: io::ErrorKind) -> bool {
    use io::ErrorKind::{CrossesDevices, PermissionDenied, TooManyLinks, Unsupported};
    matches!(failure, CrossesDevices | PermissionDenied | TooManyLinks | Unsupported)
}
