//! Files from outside that become objects: of an old registry.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt, fchown},
    path::Path,
};

use berth_shared::{
    files::{path_of, sync_directory},
    unix_owner::{Identity, Owner},
};
use nix::{
    fcntl::{AT_FDCWD, AtFlags, OFlag},
    unistd::linkat,
};

use super::{DiskStore, copying::copy};
use crate::storage::Location;

/// How a file from outside becomes an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// By a second name; the first stays, and so does the file's owner.
    HardLink,
    /// By a second name, the first of which is about to go.
    Adopt,
    /// By a copy of its bytes.
    Copy,
}

/// Makes objects of open files that lie outside the store.
#[derive(Debug, Clone)]
pub(crate) struct TakingIn {
    store: DiskStore,
    how: How,
    owner: Option<Owner>,
}

impl TakingIn {
    /// Into `store`. What is adopted is given to `owner`, the store's, if that is another than root,
    /// who runs this.
    pub(crate) fn new(store: DiskStore, how: How, owner: Option<Owner>) -> Self {
        Self { store, how, owner }
    }

    /// Makes an object of the file. For [`How::Copy`] its bytes are durable afterwards; its entry is
    /// made so by [`sync`](Self::sync).
    ///
    /// # Errors
    /// What the system says; no object is left behind then.
    pub(crate) fn take(&self, file: &File, location: &Location) -> io::Result<()> {
        let (path, owner) = (self.store.path(location), self.owner);
        let taken = match self.how {
            How::HardLink => hard_link_as_root(file, &path, owner),
            How::Adopt => hard_link_as_root(file, &path, owner).and_then(|()| give(file, owner)),
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
    pub(crate) fn sync(&self, locations: &[Location]) -> io::Result<()> {
        let shards: BTreeSet<&str> = locations.iter().map(|it| &it.as_str()[..2]).collect();
        shards.into_iter().try_for_each(|shard| sync_directory(&self.store.root.join(shard)))
    }
}

/// Gives the very file that is open, whatever its name leads to by now.
fn give(file: &File, owner: Option<Owner>) -> io::Result<()> {
    let Some(owner) = owner else { return Ok(()) };
    Identity::of_root().within(|| fchown(file, Some(owner.user), Some(owner.group)))
}

/// Gives an open file a second name, with root's rights, since a file of root's is nobody else's to
/// link. The name goes into the directory that was looked at: one of `owner`'s.
fn hard_link_as_root(file: &File, path: &Path, owner: Option<Owner>) -> io::Result<()> {
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
