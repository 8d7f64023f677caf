//! Run as root, a command first becomes the owner of the data, so that it leaves no file behind
//! that the server may not write; or it gives that owner what it made.

use std::{
    ffi::CString,
    fs, io,
    os::unix::fs::{MetadataExt, lchown},
    path::Path,
};

use nix::unistd::{Gid, Uid, User, geteuid, initgroups, setgid, setgroups, setuid};

/// A user and the group of that user's files, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// The user.
    pub user: u32,
    /// The group.
    pub group: u32,
}

/// Becomes the owner of `path`, if it is there, this is root, and the owner is somebody else.
/// Called before anything is opened for writing.
///
/// # Errors
/// When the system does not let it.
pub fn become_owner_of(path: &Path) -> Result<(), nix::Error> {
    let Ok(Some(owner)) = Owner::of(path) else { return Ok(()) };
    let (user, group) = (Uid::from_raw(owner.user), Gid::from_raw(owner.group));
    // With the groups that the owner's own processes have: auth-server shares files with the
    // registry's user by one of them. In a container nobody may be known by that number.
    match User::from_uid(user).ok().flatten().map(|known| CString::new(known.name)) {
        Some(Ok(name)) => initgroups(&name, group)?,
        Some(Err(_)) | None => setgroups(&[group])?,
    }
    setgid(group)?;
    setuid(user)?;
    Ok(())
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

    /// Makes `path` this owner's. A symbolic link is given itself, and not what it leads to.
    ///
    /// # Errors
    /// When the system does not let it.
    pub fn give(self, path: &Path) -> io::Result<()> {
        lchown(path, Some(self.user), Some(self.group))
    }

    /// Whether this user may read a file, as far as its mode says.
    #[must_use]
    pub fn may_read(self, file: &fs::Metadata) -> bool {
        let bit = if file.uid() == self.user {
            0o400
        } else if file.gid() == self.group {
            0o040
        } else {
            0o004
        };
        file.mode() & bit != 0
    }
}
