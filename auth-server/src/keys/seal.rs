//! What seals the signing keys that lie in a database: AES-256-GCM under a key from a file, so that who
//! reads the database, or a copy of it, signs nothing.
//!
//! What is sealed is bound to the name and the algorithm of its key, so that no row can stand for another.
//! The file is read each time that keys are, so that a line can be added or taken out under a server that
//! runs.

use std::{
    io,
    path::{Path, PathBuf},
};

use berth_shared::{
    files::{SMALL_FILE_BYTES_MAX, is_open_to_others, read_at_most},
    secret_lines::{SECRET_BYTES, SecretLines},
};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::Zeroizing;

use super::KeyError;
use crate::{
    files::{self, FileError},
    random,
};

/// What every binding begins with: another use of the same key, or another form, begins otherwise.
const PURPOSE: &[u8] = b"berth-key-1";

/// The key that seals cannot be used. No part of the file is told.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The file cannot be read.
    #[error(
        "keys.sealed_with: {path}: {source}; put the file back that the signing keys were sealed with, \
         or, where there are none yet: authctl key seal --out {path}", path = path.display()
    )]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file holds something else.
    #[error(
        "keys.sealed_with: {} does not hold one key of 43 letters, or two in a line each: put it back",
        .0.display()
    )]
    Malformed(PathBuf),
    /// A file is not overwritten: what it seals could not be opened any more.
    #[error(
        "there is a {path} already, and signing keys may be sealed with it; to change it, put a new key \
         in front: authctl key seal --add --out {path}", path = .0.display()
    )]
    There(PathBuf),
    /// The key is being changed already.
    #[error(
        "{path} holds two keys already: authctl key reseal, and then take its second line out",
        path = .0.display()
    )]
    AreTwo(PathBuf),
    /// The file cannot be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The system gives no randomness.
    #[error("the system gives no randomness")]
    Randomness,
}

/// Seals and opens. Has no `Debug`, and is wiped when dropped.
pub struct Sealer {
    path: PathBuf,
    lines: SecretLines,
}

impl Sealer {
    /// Reads the file at `path`: the first line seals, and where there are two, both open.
    ///
    /// # Errors
    /// When it cannot be read, or holds something else.
    pub fn read(path: &Path) -> Result<Self, SealError> {
        let bytes = read_at_most(path, SMALL_FILE_BYTES_MAX)
            .map_err(|source| SealError::Read { path: path.to_owned(), source })?;
        let lines = SecretLines::parse(&Zeroizing::new(bytes));
        let lines = lines.ok_or_else(|| SealError::Malformed(path.to_owned()))?;
        if is_open_to_others(path) {
            let file = path.display();
            tracing::warn!(%file, "others than its owner may use what seals the keys: chmod 600");
        }
        Ok(Self { path: path.to_owned(), lines })
    }

    /// Makes a new file at `path`, which only its owner may read.
    ///
    /// # Errors
    /// When there is one, or it cannot be written.
    pub fn make(path: &Path) -> Result<(), SealError> {
        // What may not be looked at is not taken for missing.
        if path.try_exists().unwrap_or(true) {
            return Err(SealError::There(path.to_owned()));
        }
        write(path, &SecretLines::generate().map_err(|_| SealError::Randomness)?)
    }

    /// Puts a new line in front of the one in the file at `path`: it seals from now on, and both open.
    ///
    /// # Errors
    /// When there are two already, or the file cannot be read or written.
    pub fn add(path: &Path) -> Result<(), SealError> {
        let Self { lines, path } = Self::read(path)?;
        if lines.second().is_some() {
            return Err(SealError::AreTwo(path));
        }
        write(&path, &lines.rotated().map_err(|_| SealError::Randomness)?)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there are two lines.
    pub fn are_two(&self) -> bool {
        self.lines.second().is_some()
    }

    /// Seals a private key, for the row of this name and algorithm: a nonce, and what only opens with it.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub(super) fn seal(
        &self,
        plain: &[u8],
        name: &str,
        algorithm: &str,
    ) -> Result<Vec<u8>, KeyError> {
        // Random nonces come twice after some 2³² seals; there are a few in a year.
        let nonce = random::bytes::<NONCE_LEN>().map_err(|_| KeyError::Making)?;
        let first = self.lines.bytes().next().ok_or(KeyError::Making)?;
        // Sealed where it lies, so that no copy of it is left behind.
        let mut sealed = Zeroizing::new(plain.to_vec());
        let tag = key(&first)
            .and_then(|key| {
                let nonce = Nonce::assume_unique_for_key(nonce);
                let bound = Aad::from(binding(name, algorithm));
                key.seal_in_place_separate_tag(nonce, bound, &mut sealed).ok()
            })
            .ok_or(KeyError::Making)?;
        Ok([&nonce, sealed.as_slice(), tag.as_ref()].concat())
    }

    /// Opens what was sealed for the row of this name and algorithm; `None` when it was not, or with
    /// another key, or is no longer what it was.
    pub(super) fn open(
        &self,
        sealed: &[u8],
        name: &str,
        algorithm: &str,
    ) -> Option<Zeroizing<Vec<u8>>> {
        let (nonce, rest) = sealed.split_at_checked(NONCE_LEN)?;
        self.lines.bytes().find_map(|bytes| {
            let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
            let bound = Aad::from(binding(name, algorithm));
            let mut opened = Zeroizing::new(rest.to_vec());
            let length = key(&bytes)?.open_in_place(nonce, bound, &mut opened).ok()?.len();
            opened.truncate(length);
            Some(opened)
        })
    }
}

fn key(bytes: &[u8; SECRET_BYTES]) -> Option<LessSafeKey> {
    UnboundKey::new(&AES_256_GCM, bytes).ok().map(LessSafeKey::new)
}

/// What a sealed key is bound to. Each part has its length in front, so that no two pairs of them are the
/// same.
fn binding(name: &str, algorithm: &str) -> Vec<u8> {
    let mut bytes = PURPOSE.to_vec();
    for part in [name, algorithm] {
        bytes.extend((part.len() as u64).to_be_bytes());
        bytes.extend(part.as_bytes());
    }
    bytes
}

fn write(path: &Path, lines: &SecretLines) -> Result<(), SealError> {
    Ok(files::replace(path, lines.to_text().as_bytes(), files::PRIVATE)?)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    const PLAIN: &[u8] = b"a private key";

    #[test]
    fn what_is_sealed_opens_for_its_row_alone_and_only_whole() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("a"), dir.path().join("b"));
        Sealer::make(&path).unwrap();
        Sealer::make(&other).unwrap();
        let (sealer, other) = (Sealer::read(&path).unwrap(), Sealer::read(&other).unwrap());
        let sealed = sealer.seal(PLAIN, "es256-5", "es256").unwrap();
        assert_eq!(sealed.len(), 12 + PLAIN.len() + 16);
        assert!(!sealed.windows(PLAIN.len()).any(|part| part == PLAIN));
        assert_ne!(sealed, sealer.seal(PLAIN, "es256-5", "es256").unwrap());
        let opened = sealer.open(&sealed, "es256-5", "es256").unwrap();
        assert_eq!(opened.as_slice(), PLAIN);
        assert!(other.open(&sealed, "es256-5", "es256").is_none());
        // The same letters, cut elsewhere, are another row as well.
        for (name, algorithm) in
            [("es256-6", "es256"), ("es256-5", "eddsa"), ("es256-5e", "s256"), ("", "es256-5es256")]
        {
            assert!(sealer.open(&sealed, name, algorithm).is_none(), "{name} {algorithm}");
        }
        for length in 0..sealed.len() {
            assert!(sealer.open(&sealed[..length], "es256-5", "es256").is_none(), "{length}");
        }
        for index in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[index] ^= 1;
            assert!(sealer.open(&changed, "es256-5", "es256").is_none(), "{index}");
        }
        assert!(sealer.open(&[&sealed[..], &[0]].concat(), "es256-5", "es256").is_none());
    }

    #[test]
    fn of_two_lines_the_first_seals_and_both_open() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sealing.key");
        let missing = Sealer::read(&path).err().unwrap().to_string();
        assert!(missing.contains("authctl key seal --out") && missing.contains("sealing.key"));
        Sealer::make(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let one = Sealer::read(&path).unwrap();
        assert!(matches!(Sealer::make(&path), Err(SealError::There(_))));
        Sealer::add(&path).unwrap();
        assert!(matches!(Sealer::add(&path), Err(SealError::AreTwo(_))));
        let two = Sealer::read(&path).unwrap();
        assert!(two.are_two() && !one.are_two());
        let old = one.seal(PLAIN, "a", "es256").unwrap();
        assert!(two.open(&old, "a", "es256").is_some());
        let new = two.seal(PLAIN, "a", "es256").unwrap();
        assert!(one.open(&new, "a", "es256").is_none());
        let last = fs::read_to_string(&path).unwrap();
        fs::write(&path, last.lines().next().unwrap()).unwrap();
        let last = Sealer::read(&path).unwrap();
        assert!(last.open(&new, "a", "es256").is_some() && last.open(&old, "a", "es256").is_none());
        fs::write(&path, "half of").unwrap();
        let error = Sealer::read(&path).err().unwrap().to_string();
        assert!(error.contains("sealing.key") && !error.contains("half of"), "{error}");
    }
}
