//! What directories and the files in them need, so that they are there after a power cut and are
//! one process's alone; and how many files a process may have open.

use std::{
    fs::{File, TryLockError},
    io,
    path::Path,
};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// What Linux gives a process that nobody gave more.
const OPEN_FILES_LEAST: u64 = 1024;

/// The directory that `path` is in: the one at work where the path is a bare name.
#[must_use]
pub fn directory_of(path: &Path) -> &Path {
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
    directory.unwrap_or(Path::new("."))
}

/// Makes durable which names `directory` has.
///
/// # Errors
/// When it cannot be opened or synced.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Locks an open file for this process alone, for as long as it is open; `None` when another
/// process has it.
///
/// # Errors
/// When the system does not lock it.
pub fn try_lock(file: File) -> io::Result<Option<File>> {
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Asks the system for as many open files as it ever gives this process, and says how many that are.
/// Fewer than are `needed` is worth a line in the log.
pub fn raise_open_files(needed: usize) -> usize {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).map(|(soft, hard)| {
        match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
            Ok(()) => hard,
            Err(_) => soft,
        }
    });
    // Who cannot say what the limit is has the least that systems give.
    let open = usize::try_from(raised.unwrap_or(OPEN_FILES_LEAST)).unwrap_or(usize::MAX);
    if open < needed {
        tracing::warn!(
            open_files_max = open,
            needed,
            "few files may be open at once: raise LimitNOFILE of the unit, or ulimit -n"
        );
    }
    open
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_of_a_path_can_always_be_opened() {
        for (path, directory) in [("htpasswd", "."), ("./htpasswd", "."), ("a/b", "a"), ("/b", "/")]
        {
            assert_eq!(directory_of(Path::new(path)), Path::new(directory), "{path}");
        }
        sync_directory(directory_of(Path::new("htpasswd"))).unwrap();
    }

    #[test]
    fn a_file_is_locked_once() {
        let dir = tempfile::tempdir().unwrap();
        let open = || File::create(dir.path().join("lock")).unwrap();
        let held = try_lock(open()).unwrap();
        assert!(held.is_some() && try_lock(open()).unwrap().is_none());
        drop(held);
        assert!(try_lock(open()).unwrap().is_some());
    }
}
