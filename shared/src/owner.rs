//! Run as root, a command first becomes the owner of the data, so that it leaves no file behind
//! that the server may not write.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use nix::unistd::{Gid, Uid, geteuid, setgid, setgroups, setuid};

/// A user and the group of that user's files, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// The user.
    pub user: u32,
    /// The group.
    pub group: u32,
}

/// The owner of `path`, if it is there, this is root, and the owner is somebody else.
#[must_use]
pub fn other_owner_of(path: &Path) -> Option<Owner> {
    let meta = fs::metadata(path).ok().filter(|_| geteuid().is_root())?;
    (meta.uid() != 0).then(|| Owner { user: meta.uid(), group: meta.gid() })
}

/// Becomes the owner of `path`, if it is there, this is root, and the owner is somebody else.
/// Called before anything is opened for writing.
///
/// # Errors
/// When the system does not let it.
pub fn become_owner_of(path: &Path) -> Result<(), nix::Error> {
    let Some(owner) = other_owner_of(path) else { return Ok(()) };
    let (user, group) = (Uid::from_raw(owner.user), Gid::from_raw(owner.group));
    setgroups(&[group])?;
    setgid(group)?;
    setuid(user)?;
    Ok(())
}

impl Owner {
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
