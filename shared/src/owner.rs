//! Run as root, a command first becomes the owner of the data, so that it leaves no file behind
//! that the server may not write.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt, chown},
    path::Path,
};

use nix::unistd::{Gid, Uid, geteuid, setgid, setgroups, setuid};

/// Becomes the owner of `path`, if it is there, this is root, and the owner is somebody else.
/// Called before anything is opened for writing.
///
/// # Errors
/// When the system does not let it.
pub fn become_owner_of(path: &Path) -> Result<(), nix::Error> {
    if !geteuid().is_root() {
        return Ok(());
    }
    let Ok(meta) = fs::metadata(path) else { return Ok(()) };
    if meta.uid() == 0 {
        return Ok(());
    }
    let (user, group) = (Uid::from_raw(meta.uid()), Gid::from_raw(meta.gid()));
    setgroups(&[group])?;
    setgid(group)?;
    setuid(user)?;
    Ok(())
}

/// The user and group that what root makes is to belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    user: u32,
    group: u32,
}

impl Owner {
    /// The owner of `path`, if this is root and the owner is somebody else.
    ///
    /// # Errors
    /// When `path` cannot be looked at.
    pub fn of(path: &Path) -> io::Result<Option<Self>> {
        let meta = fs::metadata(path)?;
        let owner = Self { user: meta.uid(), group: meta.gid() };
        Ok(Some(owner).filter(|owner| geteuid().is_root() && owner.user != 0))
    }

    /// Whether `path` is this owner's already.
    ///
    /// # Errors
    /// When `path` cannot be looked at.
    pub fn has(self, path: &Path) -> io::Result<bool> {
        Ok(fs::metadata(path)?.uid() == self.user)
    }

    /// Makes `path` this owner's.
    ///
    /// # Errors
    /// When the system does not let it.
    pub fn give(self, path: &Path) -> io::Result<()> {
        chown(path, Some(self.user), Some(self.group))
    }
}
