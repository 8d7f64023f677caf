//! Noticing that a file has changed, without a thread and without losing an event.
//!
//! A look at the file's metadata costs about a microsecond, so whoever depends on a file looks
//! before each use. Unlike a notification this also sees a symbolic link that was swapped above
//! the file, as Kubernetes does with mounted secrets.

use std::{fs, io, path::Path, time::Duration};

use std::os::unix::fs::MetadataExt;

use crate::clock::{Clock, UnixSeconds};

/// How long after its last change a file counts as still being written: within this time two
/// changes can leave the same time stamp, so the stamp proves nothing.
const SETTLED_AFTER: Duration = Duration::from_secs(2);

/// What a file looked like when it was last read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    settled: bool,
}

impl Stamp {
    /// Looks at `path`, following symbolic links.
    ///
    /// # Errors
    /// When the file is missing or cannot be looked at.
    pub fn of(path: &Path, clock: &Clock) -> io::Result<Self> {
        let meta = fs::metadata(path)?;
        let age: UnixSeconds = clock.now() - meta.ctime().max(meta.mtime());
        Ok(Self {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
            settled: age > SETTLED_AFTER.as_secs().cast_signed(),
        })
    }

    /// Whether a file that now looks like `now` may hold something else than when it looked like
    /// `self`. Errs on the side of yes while the file is fresh.
    #[must_use]
    pub fn may_differ_from(&self, now: &Self) -> bool {
        !self.settled || Self { settled: true, ..*self } != Self { settled: true, ..*now }
    }
}
