//! What directories and the files in them need, so that they are there after a power cut and are
//! one process's alone; and how many files a process may have open.

use std::{
    fs::{File, TryLockError},
    io,
    os::{fd::AsRawFd, unix::fs::OpenOptionsExt},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    sys::resource::{Resource, getrlimit, setrlimit},
};

/// What Linux gives a process that nobody gave more.
const OPEN_FILES_LEAST: u64 = 1024;

/// The directory that `path` is in: the one at work where the path is a bare name.
#[must_use]
pub fn directory_of(path: &Path) -> &Path {
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
    directory.unwrap_or(Path::new("."))
}

/// Opens a file to read it, if it is one: a link, a pipe or a device in its place is no file, and
/// nothing is waited for.
///
/// # Errors
/// When there is no file, or it may not be read.
pub fn open_regular(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let opened = File::options().read(true).custom_flags(flags.bits()).open(path);
    let file = opened.map_err(|error| match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ELOOP) => io::ErrorKind::NotFound.into(),
        _ => error,
    })?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::ErrorKind::NotFound.into()) }
}

/// The path that leads to an open file, whatever has become of its name.
#[must_use]
pub fn path_of(file: &File) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
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
    fn what_is_no_file_is_not_opened() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("file"), "text").unwrap();
        std::os::unix::fs::symlink(at("file"), at("link")).unwrap();
        nix::unistd::mkfifo(&at("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let file = open_regular(&at("file")).unwrap();
        assert_eq!(std::fs::read(path_of(&file)).unwrap(), b"text");
        for name in ["link", "pipe", "missing", "."] {
            let refused = open_regular(&at(name)).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::NotFound, "{name}");
        }
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
