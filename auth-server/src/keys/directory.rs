//! The keys' directory: reading it, and bringing it up to date in an order that a crash cannot
//! harm.
//!
//! Who writes holds a lock beside the directory. New keys are on disk before `states.json` names
//! them, that file is replaced in one step, and only then do the keys go that it names no longer.
//! So it always names keys that are there, and a run that was cut off leaves at most files that
//! nobody uses, which the next run deletes. Readers take no lock: they read the states again when
//! a key went away in between.

use std::{
    fs::{self, DirEntry, File},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use berth_shared::{
    clock::{Clock, UnixSeconds},
    files::sync_directory,
};
use zeroize::Zeroizing;

use super::{
    KeyError, SigningKey, SigningKeys, Unfit,
    file::KeyFile,
    pair::{generate, pem},
    rules,
    settings::{KeyIds, Settings},
    states::{Entry, States},
};
use crate::files::{self, FileError};

/// The file that says which key signs.
pub(super) const STATES: &str = "states.json";

/// How often the states are read again because a key went away meanwhile: a rotation lasts
/// milliseconds, and they are made by hand.
const READINGS_MAX: usize = 4;

/// Keeps everybody else from changing the keys of `settings` for as long as the file is open.
///
/// # Errors
/// When the lock beside the directory cannot be made.
pub fn hold(settings: &Settings) -> Result<File, FileError> {
    files::lock(&settings.directory.with_extension("lock"))
}

impl SigningKeys {
    /// Reads the keys of `settings`, after all that is due was done: what is missing is made, what
    /// an older Berth left is taken over, and retired keys whose time is over are deleted.
    ///
    /// # Errors
    /// When the directory cannot be read or written, or a key in it is not fit to sign.
    pub fn open(settings: &Settings, clock: &Clock) -> Result<Self, KeyError> {
        let now = clock.now();
        let directory = &settings.directory;
        files::make_directory(directory)?;
        let _lock = hold(settings)?;
        let old = states_in(directory)?;
        let there = key_files(directory)?;
        let taken_over = || States::taken_over(there.clone(), settings.algorithm, now);
        let mut states = old.clone().unwrap_or_else(taken_over);
        states.keep_there(&there);
        states.forget(now);
        // What is there is looked at before anything is made: a key that must not sign is named.
        for key in &states.keys {
            load(directory, key, settings.ids)?;
        }
        rules::complete(&mut states, settings, now, || make(settings, now))?;
        if old.as_ref() != Some(&states) {
            write(directory, &states)?;
        }
        remove_unnamed(directory, &states)?;
        load_all(directory, states, settings.ids)
    }

    /// Reads the keys of `settings`, and changes nothing.
    ///
    /// # Errors
    /// When there are none, or one is not fit to sign.
    pub fn read(settings: &Settings, clock: &Clock) -> Result<Self, KeyError> {
        let directory = &settings.directory;
        let mut tries = 0..READINGS_MAX;
        loop {
            let states = match states_in(directory)? {
                Some(states) => states,
                None => States::taken_over(key_files(directory)?, settings.algorithm, clock.now()),
            };
            match load_all(directory, states, settings.ids) {
                Err(KeyError::File(error)) if error.is_missing() && tries.next().is_some() => {}
                keys => return keys,
            }
        }
    }
}

/// Makes a key on disk that no state names yet.
pub(super) fn make(settings: &Settings, now: UnixSeconds) -> Result<KeyFile, KeyError> {
    let path = |file: &KeyFile| settings.directory.join(file.to_string());
    let file = rules::free_name(settings, now, |file| !path(file).exists())?;
    let pem = pem(&generate(settings.algorithm)?);
    files::replace(&path(&file), pem.as_bytes(), files::PRIVATE)?;
    Ok(file)
}

/// Takes `states` into use, in one step.
pub(super) fn write(directory: &Path, states: &States) -> Result<(), KeyError> {
    Ok(files::replace(&directory.join(STATES), &states.to_text(), files::PRIVATE)?)
}

/// Deletes keys that no state names: what a run that was cut off has left, and what is over.
pub(super) fn remove_unnamed(directory: &Path, states: &States) -> Result<(), KeyError> {
    for file in key_files(directory)?.iter().filter(|file| !states.names(file)) {
        let path = directory.join(file.to_string());
        tracing::info!("deleting the signing key {}, which is not in use any more", path.display());
        fs::remove_file(&path).map_err(|source| FileError::new("deleting", &path, source))?;
    }
    let synced = sync_directory(directory);
    Ok(synced.map_err(|source| FileError::new("syncing", directory, source))?)
}

pub(super) fn states_in(directory: &Path) -> Result<Option<States>, KeyError> {
    let path = directory.join(STATES);
    match files::read(&path) {
        Ok(text) => States::parse(&text)
            .map(Some)
            .map_err(|reason| KeyError::States { path: path.display().to_string(), reason }),
        Err(error) if error.is_missing() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn load_all(directory: &Path, states: States, ids: KeyIds) -> Result<SigningKeys, KeyError> {
    let keys = states.keys.iter().map(|key| load(directory, key, ids));
    let keys = keys.collect::<Result<_, _>>()?;
    SigningKeys::new(keys, states).ok_or_else(|| KeyError::NoKey(directory.display().to_string()))
}

fn load(directory: &Path, entry: &Entry, ids: KeyIds) -> Result<SigningKey, KeyError> {
    let path: PathBuf = directory.join(entry.file.to_string());
    let shown = path.display().to_string();
    let meta = fs::metadata(&path).map_err(|source| FileError::new("reading", &path, source))?;
    let mode = meta.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyError::Open { path: shown, mode });
    }
    let text = Zeroizing::new(files::read(&path)?);
    let (_, pem) =
        x509_parser::pem::parse_x509_pem(&text).map_err(|_| KeyError::Unusable(shown.clone()))?;
    let der = Zeroizing::new(pem.contents);
    let key = SigningKey::of(entry, &der, ids).map_err(|unfit| match unfit {
        Unfit::NoKey => KeyError::Unusable(shown),
        Unfit::Published(source_of) => KeyError::Published { path: shown, source_of },
    })?;
    Ok(SigningKey { file: Some(path), ..key })
}

/// The keys in the directory. Anything else, such as a temporary file left by a crash, is not one.
pub(super) fn key_files(directory: &Path) -> Result<Vec<KeyFile>, KeyError> {
    let list = fs::read_dir(directory).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let entries = match list {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        list => list.map_err(|source| FileError::new("reading", directory, source))?,
    };
    let read = |entry: &DirEntry| entry.file_name().to_str()?.parse().ok();
    Ok(entries.iter().filter_map(read).collect())
}
