//! The secret of the link: where `auth-server` is asked over a network, it answers whoever shows this.
//!
//! It stands in a file, as 32 random bytes in 43 letters of base64url. While it is changed the file has
//! two lines: the first is shown, and both are taken.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use http::HeaderValue;
use parking_lot::Mutex;
use ring::error::Unspecified;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::{
    file_stamp::Stamp,
    files::{SMALL_FILE_BYTES_MAX, is_open_to_others, read_at_most},
    secret_lines::SecretLines,
    telemetry::chain,
};

/// The secrets in a file cannot be used. No part of the file is told.
#[derive(Debug, thiserror::Error)]
pub enum LinkSecretError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file holds something else.
    #[error("{} does not hold one secret of 43 letters alone, or two in a line each", .0.display())]
    Malformed(PathBuf),
}

impl LinkSecretError {
    /// Whether the file is there, and may not be read.
    #[must_use]
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Self::Read { source, .. } if source.kind() == io::ErrorKind::PermissionDenied)
    }
}

/// The secrets of a file. Has no `Debug`, and is wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct LinkSecrets(SecretLines);

impl LinkSecrets {
    /// A new secret, alone.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn generate() -> Result<Self, Unspecified> {
        SecretLines::generate().map(Self)
    }

    /// A new secret, and the one that was shown so far.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn rotated(self) -> Result<Self, Unspecified> {
        self.0.rotated().map(Self)
    }

    /// The one that is shown, alone.
    #[must_use]
    pub fn finished(self) -> Self {
        Self(self.0.finished())
    }

    /// Whether two are taken: not everybody shows the first yet.
    #[must_use]
    pub fn are_two(&self) -> bool {
        self.0.second().is_some()
    }

    /// Reads those in the file at `path`.
    ///
    /// # Errors
    /// When it cannot be read, or holds something else.
    pub fn read(path: &Path) -> Result<Self, LinkSecretError> {
        let bytes = read_at_most(path, SMALL_FILE_BYTES_MAX)
            .map_err(|source| LinkSecretError::Read { path: path.to_owned(), source })?;
        let bytes = Zeroizing::new(bytes);
        Self::parse(&bytes).ok_or_else(|| LinkSecretError::Malformed(path.to_owned()))
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        SecretLines::parse(bytes).map(Self)
    }

    /// What the file says.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        self.0.to_text()
    }

    /// What is shown, as a header of which no log says the value.
    #[must_use]
    pub fn shown(&self) -> HeaderValue {
        // base64url is good in a header: nothing is ever shown in place of a secret.
        let value = HeaderValue::from_str(self.0.first());
        let mut value = value.unwrap_or(HeaderValue::from_static(""));
        value.set_sensitive(true);
        value
    }

    /// Whether `shown` is one of them; how long that takes says nothing of which letter is wrong.
    #[must_use]
    pub fn take(&self, shown: &[u8]) -> bool {
        let is = |secret: &str| secret.as_bytes().ct_eq(shown);
        let first = is(self.0.first());
        bool::from(self.0.second().map_or(first, |second| first | is(second)))
    }
}

/// A file of secrets, looked at before each use, which costs a microsecond. One that becomes unusable
/// changes nothing.
pub struct LinkSecretFile {
    path: PathBuf,
    current: Mutex<Reading>,
}

struct Reading {
    stamp: Option<Stamp>,
    secrets: Arc<LinkSecrets>,
}

impl LinkSecretFile {
    /// Reads the file.
    ///
    /// # Errors
    /// As [`LinkSecrets::read`].
    pub fn open(path: &Path) -> Result<Self, LinkSecretError> {
        // The stamp is taken before the bytes: a change in between is seen again next time.
        let stamp = Stamp::of(path).ok();
        let secrets = Arc::new(LinkSecrets::read(path)?);
        if is_open_to_others(path) {
            let file = path.display();
            tracing::warn!(%file, "others than its owner may use the link's secret: chmod 600");
        }
        Ok(Self { path: path.to_owned(), current: Mutex::new(Reading { stamp, secrets }) })
    }

    /// The secrets as the file has them now.
    pub fn fresh(&self) -> Arc<LinkSecrets> {
        let mut current = self.current.lock();
        let now = Stamp::of(&self.path).ok();
        let is_same = match (&current.stamp, &now) {
            (Some(stamp), Some(now)) => !stamp.may_differ_from(now),
            (None, None) => true,
            _ => false,
        };
        if !is_same {
            match LinkSecrets::read(&self.path) {
                Ok(secrets) if secrets == *current.secrets => {}
                Ok(secrets) => {
                    tracing::info!(file = %self.path.display(), "the link's secret was read again");
                    current.secrets = Arc::new(secrets);
                }
                Err(error) if now.is_none() || current.stamp != now => {
                    tracing::warn!(error = chain(&error), "the link's secret stays as it was");
                }
                Err(_) => {}
            }
            current.stamp = now;
        }
        Arc::clone(&current.secrets)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn one_line_or_two_are_taken_and_nothing_else() {
        let (one, two) = (LinkSecrets::generate().unwrap(), LinkSecrets::generate().unwrap());
        let (one, two) = (one.to_text(), two.to_text());
        let (a, b) = (one.trim_end(), two.trim_end());
        assert_eq!(a.len(), 43);
        for (text, taken) in [
            (format!("{a}\n"), &[a][..]),
            (a.to_owned(), &[a]),
            (format!("{a}\r\n{b}\r\n"), &[a, b]),
            (format!("{a}\n\n{b}"), &[a, b]),
        ] {
            let secrets = LinkSecrets::parse(text.as_bytes()).unwrap();
            assert_eq!(secrets.shown(), a);
            assert!(secrets.shown().is_sensitive());
            for shown in [a, b, &a[1..], "", &format!("{a}\n")] {
                assert_eq!(secrets.take(shown.as_bytes()), taken.contains(&shown), "{shown}");
            }
            let again = LinkSecrets::parse(secrets.to_text().as_bytes()).unwrap();
            assert!(again == secrets);
        }
        for bad in
            ["", "\n", "short", &format!("{a}x"), &format!("{a}\n{b}\n{a}"), &format!("{a} ")]
        {
            assert!(LinkSecrets::parse(bad.as_bytes()).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn a_changed_file_is_read_again_and_a_broken_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        assert!(matches!(LinkSecretFile::open(&path), Err(LinkSecretError::Read { .. })));
        let first = LinkSecrets::generate().unwrap();
        fs::write(&path, &*first.to_text()).unwrap();
        let file = LinkSecretFile::open(&path).unwrap();
        let both = first.clone().rotated().unwrap();
        assert!(both.are_two() && both.take(first.shown().as_bytes()));
        fs::write(&path, &*both.to_text()).unwrap();
        assert!(*file.fresh() == both);
        fs::write(&path, "half of").unwrap();
        assert!(*file.fresh() == both);
        fs::remove_file(&path).unwrap();
        assert!(*file.fresh() == both);
        fs::write(&path, &*both.clone().finished().to_text()).unwrap();
        assert!(!file.fresh().are_two() && !file.fresh().take(first.shown().as_bytes()));
    }
}
