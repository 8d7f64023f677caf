//! Objects that go from one store into another: into a backup, and back.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::Path,
};

use berth_shared::{
    files::{open_regular, path_of, sync_directory},
    unix_owner::Identity,
};
use nix::{
    fcntl::{AT_FDCWD, AtFlags},
    unistd::linkat,
};

use super::{DiskStore, ended, explain, on_disk};
use crate::storage::{Error, Location, Store};

/// A store, and one that is filled from it. Whoever works in each is who reads and writes there.
#[derive(Debug)]
pub(crate) struct Copying {
    source: DiskStore,
    target: DiskStore,
}

impl Copying {
    pub(crate) fn new(source: DiskStore, target: DiskStore) -> Self {
        Self { source, target }
    }

    /// Where objects come from.
    pub(crate) fn source(&self) -> &dyn Store {
        &self.source
    }

    /// Where they go.
    pub(crate) fn target(&self) -> &dyn Store {
        &self.target
    }

    /// Puts an object of the source where it belongs, whatever lies there: by a hard link, or where
    /// that cannot be by a copy whose bytes are durable. The entry is not durable before
    /// [`sync`](Self::sync). `false` when the source has no such object, or who works in it may not
    /// read it.
    ///
    /// Where root runs this, the file is opened by who works in the source, and is copied where the
    /// link would be somebody else's than who works in the target.
    pub(crate) async fn take(&self, location: &Location) -> Result<bool, Error> {
        const OPERATION: &str = "taking over";
        self.remove(location).await?;
        let (source, reader) = (self.source.path(location), self.source.identity);
        let (path, writer) = (self.target.path(location), self.target.identity);
        // One after the other, and not one within the other: who reads may be who the thread is.
        let take = move || {
            let file =
                reader.within(|| open_regular(&source)).map_err(|error| match error.kind() {
                    io::ErrorKind::PermissionDenied => io::ErrorKind::NotFound.into(),
                    _ => error,
                })?;
            writer.within(|| hard_link_or_copy(&file, &path, writer))
        };
        let taken = ended(on_disk(OPERATION, take)).await;
        match taken.map_err(|error| explain(OPERATION, location, error)) {
            Err(Error::NotFound(_)) => Ok(false),
            taken => taken.map(|()| true),
        }
    }

    /// Deletes an object of the target; one that is missing is deleted already.
    pub(crate) async fn remove(&self, location: &Location) -> Result<(), Error> {
        self.target.remove(location).await
    }

    /// Removes from a shard of the target what copies that were broken off left there.
    pub(crate) async fn remove_partial(&self, shard: u8) -> Result<(), Error> {
        let strange = self.target.list(shard).await?.strange.into_iter();
        let partial: Vec<String> = strange.filter(|it| it.ends_with(".partial")).collect();
        let remove = move |_: &Path| partial.iter().try_for_each(fs::remove_file);
        self.target.on_root("removing what is left of copies in", remove).await
    }

    /// Makes all entries durable.
    pub(crate) async fn sync(&self) -> Result<(), Error> {
        let sync = |root: &Path| {
            for first in 0..=u8::MAX {
                sync_directory(&root.join(format!("{first:02x}")))?;
            }
            sync_directory(root)
        };
        self.target.on_root("syncing the directories of", sync).await
    }
}

/// Copies an open file to a new one, durably.
pub(crate) fn copy(mut from: &File, to: &Path) -> io::Result<()> {
    let mut to = File::create_new(to)?;
    io::copy(&mut from, &mut to)?;
    to.sync_all()
}

/// A file is there whole or not at all.
fn hard_link_or_copy(file: &File, to: &Path, writer: Identity) -> io::Result<()> {
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
