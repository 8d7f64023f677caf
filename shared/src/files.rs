//! What directories and the files in them need, so that they are there after a power cut and are
//! one process's alone; how what may be somebody else's is opened without waiting for them; and how
//! many files a process may have open.

use std::{
    fs::{self, File, Permissions, TryLockError},
    io::{self, Read, Write},
    os::{
        fd::AsRawFd,
        unix::fs::{OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    sys::resource::{Resource, getrlimit, setrlimit},
};
use tempfile::NamedTempFile;

/// What Linux gives a process that nobody gave more.
const OPEN_FILES_LEAST: u64 = 1024;

/// The directory that `path` is in: the one at work where the path is a bare name.
pub fn directory_of(path: &Path) -> &Path {
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
    directory.unwrap_or(Path::new("."))
}

/// What others than a file's owner and its group may do with it.
const OTHERS: u32 = 0o007;

/// Whether anybody may do something with the file at `path`, which should be somebody's secret.
pub fn is_open_to_others(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & OTHERS != 0)
}

/// The longest file of settings, certificates or a key that is read, in bytes.
pub const SMALL_FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Opens a file to read it, wherever links lead: a pipe or a device is no file, and nothing is waited
/// for.
///
/// # Errors
/// When it is none, or may not be read.
pub fn open_file(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    regular(File::options().read(true).custom_flags(flags.bits()).open(path)?)
}

/// Opens a file to be locked, made where it is missing for its owner alone. A link, a pipe or a device
/// in its place is refused, and nothing is waited for.
///
/// # Errors
/// When it cannot be opened.
pub fn open_lock(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    // For writing alone, the system would wait for somebody who reads a pipe.
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    regular(options.custom_flags(flags.bits()).open(path)?)
}

/// Takes the file at `path`, as [`open_lock`] opens it, for this process alone, for as long as it is
/// open. Who has it is waited for.
///
/// # Errors
/// When it cannot be opened or locked.
pub fn lock(path: &Path) -> io::Result<File> {
    let file = open_lock(path)?;
    file.lock()?;
    Ok(file)
}

/// The same without waiting; `None` when another process has it.
///
/// # Errors
/// When it cannot be opened or locked.
pub fn try_lock(path: &Path) -> io::Result<Option<File>> {
    let file = open_lock(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// How the name of a file begins that has not got its own yet.
pub const UNFINISHED: &str = ".unfinished-";

/// A new file beside `path`, to be written and then to be [`put`] there; dropped before, it is removed.
/// It has what the process's mask leaves of `mode`.
///
/// # Errors
/// When it cannot be made.
pub fn unfinished(path: &Path, mode: u32) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(UNFINISHED).permissions(Permissions::from_mode(mode));
    builder.tempfile_in(directory_of(path))
}

/// Puts what is written in place of whatever lies at `path`, durably: either the old content is seen
/// or the new.
///
/// # Errors
/// When it cannot be synced or renamed.
pub fn put(file: NamedTempFile, path: &Path) -> io::Result<()> {
    file.as_file().sync_all()?;
    file.persist(path)?;
    sync_directory(directory_of(path))
}

/// The same where nothing lies at `path`.
///
/// # Errors
/// When something does, and as [`put`].
pub fn put_new(file: NamedTempFile, path: &Path) -> io::Result<()> {
    file.as_file().sync_all()?;
    file.persist_noclobber(path)?;
    sync_directory(directory_of(path))
}

/// Puts these bytes in place of whatever lies at `path`, in a new file for everybody whom the
/// process's mask lets read it, and as [`put`] does.
///
/// # Errors
/// When it cannot be written.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = unfinished(path, 0o666)?;
    file.write_all(bytes)?;
    put(file, path)
}

/// Gives a durable file another name in place of whatever lies there, durably.
///
/// # Errors
/// When it cannot be renamed.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    sync_directory(directory_of(to))
}

/// Makes a file; what an attempt that was broken off left there is removed.
///
/// # Errors
/// When it cannot be made.
pub fn make_anew(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => File::create_new(path),
    }
}

/// Reads a file whole, as [`open_file`] opens it.
///
/// # Errors
/// When it is none, may not be read, or has more than `bytes_max`.
pub fn read_at_most(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_file(path)?.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        let reason = format!("it has more than {bytes_max} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, reason));
    }
    Ok(bytes)
}

/// What was read, as text.
pub(crate) fn text_of(bytes: Vec<u8>) -> io::Result<String> {
    String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

fn regular(file: File) -> io::Result<File> {
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"))
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
        fs::write(at("file"), "text").unwrap();
        std::os::unix::fs::symlink(at("file"), at("link")).unwrap();
        nix::unistd::mkfifo(&at("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let file = open_regular(&at("file")).unwrap();
        assert_eq!(fs::read(path_of(&file)).unwrap(), b"text");
        for name in ["link", "pipe", "missing", "."] {
            let refused = open_regular(&at(name)).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::NotFound, "{name}");
        }
    }

    #[test]
    fn nothing_is_waited_for_and_no_more_is_read_than_is_allowed() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("file"), "text").unwrap();
        std::os::unix::fs::symlink(at("file"), at("link")).unwrap();
        std::os::unix::fs::symlink("/dev/zero", at("zeros")).unwrap();
        nix::unistd::mkfifo(&at("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        for name in ["file", "link"] {
            assert_eq!(read_at_most(&at(name), 4).unwrap(), b"text", "{name}");
            let refused = read_at_most(&at(name), 3).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::FileTooLarge, "{name}");
        }
        for name in ["zeros", "pipe", "."] {
            let refused = read_at_most(&at(name), 4).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::InvalidInput, "{name}");
        }
        for name in ["zeros", "pipe", "link"] {
            assert!(open_lock(&at(name)).is_err(), "{name}");
        }
        open_lock(&at("lock")).unwrap();
        for name in ["zeros", "pipe", "missing"] {
            make_anew(&at(name)).unwrap();
        }
    }

    #[test]
    fn a_file_is_locked_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = try_lock(&path).unwrap();
        assert!(held.is_some() && try_lock(&path).unwrap().is_none());
        drop(held);
        assert!(try_lock(&path).unwrap().is_some());
        lock(&path).unwrap();
    }

    #[test]
    fn a_file_is_put_whole_and_nothing_is_left_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        for text in ["one", "two"] {
            replace(&path, text.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        let plain = dir.path().join("plain");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
        fs::write(&plain, "").unwrap();
        assert_eq!(mode(&path), mode(&plain));
        let private = unfinished(&path, 0o600).unwrap();
        let refused = put_new(private, &path).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        put_new(unfinished(&path, 0o600).unwrap(), &dir.path().join("new")).unwrap();
        rename(&dir.path().join("new"), &path).unwrap();
        assert_eq!(mode(&path) & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
