//! Writing files so that nothing half-written is ever seen, and secrets so that only their owner
//! reads them. Root does so as the owner of the directory that they are in.

use std::{
    fs::{self, DirBuilder, File, Permissions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
};

use berth_shared::{
    files::{self as shared, directory_of, sync_directory},
    unix_owner::{Assumed, Error, Identity},
};

/// The mode of files that only their owner may read.
pub const PRIVATE: u32 = 0o600;
/// The mode of files that everybody may read.
pub const READABLE: u32 = 0o644;

/// The longest file that is read but for copies of databases: one of half a million users.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Something could not be done with a file or directory.
#[derive(Debug, thiserror::Error)]
#[error("{doing} {}: {source}", path.display())]
pub struct FileError {
    doing: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl FileError {
    /// `source` happened while `doing` something with `path`.
    pub fn new(doing: &'static str, path: &Path, source: io::Error) -> Self {
        Self { doing, path: path.to_owned(), source }
    }

    /// Whether it is there, and the process may not do that with it.
    pub fn is_forbidden(&self) -> bool {
        self.source.kind() == io::ErrorKind::PermissionDenied
    }

    /// Whether it is not there.
    pub fn is_missing(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }
}

/// Puts `bytes` in place of whatever lies at `path`: either the old content is seen or the new.
/// A file that is there already keeps its owner and mode; a new one gets `mode`.
///
/// # Errors
/// When the directory cannot be written to.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    let target = target_of(path);
    let failed = |source| FileError::new("writing", path, source);
    let folder = directory_of(&target);
    let _assumed = as_owner(folder)?;
    let old = fs::metadata(&target).ok();
    let mut file = shared::unfinished(&target, PRIVATE).map_err(failed)?;
    let mode = old.as_ref().map_or(mode, |meta| meta.mode() & 0o777);
    file.as_file().set_permissions(Permissions::from_mode(mode)).map_err(failed)?;
    if let Some(old) = old {
        let now = file.as_file().metadata().map_err(failed)?;
        if (now.uid(), now.gid()) != (old.uid(), old.gid()) {
            chown(file.path(), Some(old.uid()), Some(old.gid())).map_err(failed)?;
        }
    }
    file.write_all(bytes).map_err(failed)?;
    shared::put(file, &target).map_err(failed)
}

/// Makes the directory `path` and those above it, closed to everybody but their owner, and makes
/// their existence durable. One that is there already is left as it is.
///
/// # Errors
/// When it cannot be made.
pub fn make_directory(path: &Path) -> Result<(), FileError> {
    let failed = |source| FileError::new("making the directory", path, source);
    let _assumed = as_owner(path)?;
    let missing: Vec<_> = path.ancestors().take_while(|folder| !folder.exists()).collect();
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(path).map_err(failed)?;
    for folder in missing {
        sync_directory(directory_of(folder)).map_err(failed)?;
    }
    Ok(())
}

/// Takes the file at `path`, made where it is missing, for this process alone, for as long as it is
/// open. Who has it is waited for.
///
/// # Errors
/// When it cannot be opened or locked.
pub fn lock(path: &Path) -> Result<File, FileError> {
    let _assumed = as_owner(directory_of(path))?;
    shared::lock(path).map_err(|source| FileError::new("locking", path, source))
}

/// The same without waiting; `None` when another process has it.
///
/// # Errors
/// When it cannot be opened or locked.
pub fn try_lock(path: &Path) -> Result<Option<File>, FileError> {
    let _assumed = as_owner(directory_of(path))?;
    shared::try_lock(path).map_err(|source| FileError::new("locking", path, source))
}

/// Reads a file whole; a pipe or a device is none.
///
/// # Errors
/// When it is missing, may not be read, or is longer than any that this server writes.
pub fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    read_at_most(path, FILE_BYTES_MAX)
}

/// The same of a file that may have any length.
///
/// # Errors
/// When it is missing or may not be read.
pub(crate) fn read_long(path: &Path) -> Result<Vec<u8>, FileError> {
    read_at_most(path, u64::MAX)
}

fn read_at_most(path: &Path, bytes_max: u64) -> Result<Vec<u8>, FileError> {
    let target = target_of(path);
    let _assumed = as_owner(directory_of(&target))?;
    shared::read_at_most(&target, bytes_max)
        .map_err(|source| FileError::new("reading", path, source))
}

/// A symbolic link stays one: what it points to is meant.
fn target_of(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

/// Works on files as who owns `directory`, if root runs this, until the result is dropped.
pub(crate) fn as_owner(directory: &Path) -> Result<Assumed, FileError> {
    let identity = match Identity::of(directory) {
        // authctl was refused before it came here; a server that root runs there goes on.
        Err(Error::Replaceable { .. }) => Ok(Identity::UNCHANGED),
        identity => identity.map_err(io::Error::other),
    };
    let assumed = identity.and_then(Identity::assume);
    assumed.map_err(|source| FileError::new("working in", directory, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_file_keeps_its_mode_and_its_link() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        replace(&file, b"one", PRIVATE).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        replace(&link, b"two", PRIVATE).unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"two");
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o640);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    }
}
