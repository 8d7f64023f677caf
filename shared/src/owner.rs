//! Run as root, a command first becomes the owner of the data, so that it leaves no file behind
//! that the server may not write.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

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
