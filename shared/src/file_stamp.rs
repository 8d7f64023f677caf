//! Noticing that a file has changed, without a thread and without losing an event.
//!
//! A look at the file's metadata costs about a microsecond, so whoever depends on a file looks
//! before each use. Unlike a notification this also sees a symbolic link that was swapped above
//! the file, as Kubernetes does with mounted secrets.

use std::{fs, io, os::unix::fs::MetadataExt, path::Path, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, UnixSeconds};

/// How long after its last change a file counts as still being written: within this time two
/// changes can leave the same time stamp, so the stamp proves nothing.
const SETTLED_AFTER: Duration = Duration::from_secs(2);

/// How often files are looked at that nobody looks at before each use.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

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
    pub fn of(path: &Path) -> io::Result<Self> {
        let meta = fs::metadata(path)?;
        // Compared with times that the file system gives, so a test's clock has no say in it.
        let written = UnixSeconds::new(meta.ctime().max(meta.mtime()));
        Ok(Self {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
            settled: Clock::system().now() - written > SETTLED_AFTER.as_secs().cast_signed(),
        })
    }

    /// Whether a file that now looks like `now` may hold something else than when it looked like
    /// `self`. Errs on the side of yes while the file is fresh.
    pub fn may_differ_from(&self, now: &Self) -> bool {
        !self.settled || Self { settled: true, ..*self } != Self { settled: true, ..*now }
    }

    /// Whether the file at `path` surely holds what it did when it looked like this.
    pub fn still_holds(&self, path: &Path) -> bool {
        Self::of(path).is_ok_and(|now| !self.may_differ_from(&now))
    }
}

/// Looks at these files until `shutdown`, and has them read again each time that one of them may
/// have changed. While one cannot be looked at, nothing is read.
pub async fn reload(paths: &[&Path], shutdown: &CancellationToken, read: impl Fn()) {
    let look = || paths.iter().map(|path| Stamp::of(path)).collect::<io::Result<Vec<_>>>();
    let mut seen = look().ok();
    let mut ticks = tokio::time::interval(LOOK_INTERVAL);
    while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
        let Ok(now) = look() else { continue };
        let may_differ =
            |seen: &Vec<Stamp>| seen.iter().zip(&now).any(|(seen, now)| seen.may_differ_from(now));
        if seen.as_ref().is_none_or(may_differ) {
            read();
            seen = Some(now);
        }
    }
}
