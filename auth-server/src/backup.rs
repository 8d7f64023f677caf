//! Copies of what `auth-server` knows: database, signing keys, users.
//!
//! A backup is a directory with `backup.json` and one directory of files, which that names with
//! their hashes. `backup.json` is replaced last, so a backup that breaks off leaves the one before
//! whole.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use berth_shared::{
    clock::{UnixSeconds, rfc3339},
    digest::Algorithm,
};
use serde::{Deserialize, Serialize};

use crate::{
    StartError,
    acl::{self, store::Store},
    config::Config,
    files::{self, FileError, PRIVATE},
    run,
};

/// The form of a backup that this version writes and reads.
const FORMAT: u32 = 1;

const CONTENTS: &str = "backup.json";
const DATABASE: &str = "auth.db";
const HTPASSWD: &str = "htpasswd";
const KEYS: &str = "keys";

/// A backup could not be made, or not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or directory cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The database cannot be used.
    #[error(transparent)]
    Database(#[from] acl::Error),
    /// The data directory cannot be had alone.
    #[error(transparent)]
    Locked(#[from] StartError),
    /// There is no backup, or it is of another version.
    #[error("{0}")]
    NoBackup(String),
    /// A file is not what it was when the backup was made.
    #[error("{} is not as it was when the backup was made: nothing was changed", .0.display())]
    Damaged(PathBuf),
    /// Something would be overwritten.
    #[error("{} is there already: --force moves it aside", .0.display())]
    Exists(PathBuf),
}

/// What a backup holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    /// The form of the backup.
    pub format: u32,
    /// When it was made, in UTC.
    pub made: String,
    /// The directory of its files.
    pub directory: String,
    /// The digest of each file, by its path below that directory.
    pub files: BTreeMap<String, String>,
}

/// Copies what the server of `config` knows into `to`, while it runs or not.
///
/// # Errors
/// When something cannot be read, or `to` cannot be written.
pub async fn backup(config: &Config, to: &Path, now: UnixSeconds) -> Result<Contents, Error> {
    files::make_directory(to)?;
    let before = read_contents(to).ok();
    let failed = |source| FileError::new("writing", to, source);
    let fresh = tempfile::Builder::new().prefix("files-").tempdir_in(to).map_err(failed)?;
    let store = Store::open(&config.database()).await?;
    store.snapshot(&fresh.path().join(DATABASE)).await?;
    copy(&config.htpasswd, &fresh.path().join(HTPASSWD))?;
    let keys = fresh.path().join(KEYS);
    files::make_directory(&keys)?;
    for name in names_in(&config.keys())? {
        copy(&config.keys().join(&name), &keys.join(&name))?;
    }
    let directory = fresh.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut hashes = BTreeMap::new();
    for name in all_files(fresh.path())? {
        let digest = hash(&fresh.path().join(&name))?;
        hashes.insert(name, digest);
    }
    for directory in [keys.as_path(), fresh.path(), to] {
        File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)?;
    }
    let contents = Contents { format: FORMAT, made: rfc3339(now), directory, files: hashes };
    let text = serde_json::to_vec_pretty(&contents).unwrap_or_default();
    // From here on the files are the backup's.
    let _ = fresh.keep();
    files::replace(&to.join(CONTENTS), &text, PRIVATE)?;
    if let Some(before) = before.filter(|before| before.directory != contents.directory) {
        let old = to.join(&before.directory);
        fs::remove_dir_all(&old).map_err(|source| FileError::new("removing", &old, source))?;
    }
    Ok(contents)
}

/// Puts a backup in place of what the server of `config` knows. Every token that is out becomes
/// void, since what was revoked after the backup is not known any more. With `force` what is
/// there is moved aside.
///
/// # Errors
/// When the backup is damaged, the server runs, or something is there and `force` is not set; then
/// nothing has changed.
pub async fn restore(
    config: &Config,
    from: &Path,
    force: bool,
    now: UnixSeconds,
) -> Result<Contents, Error> {
    let contents = read_contents(from)?;
    let source = from.join(&contents.directory);
    for (name, digest) in &contents.files {
        let file = source.join(name);
        if hash(&file).ok().as_ref() != Some(digest) {
            return Err(Error::Damaged(file));
        }
    }
    files::make_directory(&config.data)?;
    let _lock = run::lock(&config.data)?;
    let old = [config.database(), config.keys(), config.htpasswd.clone()];
    if let Some(there) = old.iter().find(|path| path.exists() && !force) {
        return Err(Error::Exists(there.clone()));
    }
    let staged = stage(config, &source, now).await?;
    for path in &old {
        move_aside(path)?;
    }
    let database = config.database();
    for (file, place) in [
        (staged.path().join(KEYS), config.keys()),
        (staged.path().join(HTPASSWD), config.htpasswd.clone()),
        (staged.path().join(DATABASE), database.clone()),
    ] {
        fs::rename(&file, &place).map_err(|source| FileError::new("placing", &place, source))?;
    }
    for path in [&config.data, &config.htpasswd] {
        let directory = if path.is_dir() { path } else { path.parent().unwrap_or(path) };
        let synced = File::open(directory).and_then(|directory| directory.sync_all());
        synced.map_err(|source| FileError::new("syncing", directory, source))?;
    }
    Ok(contents)
}

/// Copies the backup beside the data and makes it ready there: nothing that is in use is touched.
async fn stage(
    config: &Config,
    source: &Path,
    now: UnixSeconds,
) -> Result<tempfile::TempDir, Error> {
    let failed = |source| FileError::new("writing", &config.data, source);
    let staged =
        tempfile::Builder::new().prefix("restore-").tempdir_in(&config.data).map_err(failed)?;
    let path = staged.path();
    for name in all_files(source)? {
        if let Some(directory) = path.join(&name).parent() {
            files::make_directory(directory)?;
        }
        copy(&source.join(&name), &path.join(&name))?;
    }
    let store = Store::open(&path.join(DATABASE)).await?;
    store.check().await?;
    store.void_every_token(now).await?;
    store.close().await?;
    Ok(staged)
}

fn read_contents(backup: &Path) -> Result<Contents, Error> {
    let path = backup.join(CONTENTS);
    let text = files::read(&path).map_err(|_| {
        Error::NoBackup(format!("{} holds no backup of auth-server", backup.display()))
    })?;
    let contents: Contents = serde_json::from_slice(&text)
        .map_err(|error| Error::NoBackup(format!("{}: {error}", path.display())))?;
    if contents.format != FORMAT {
        let format = contents.format;
        return Err(Error::NoBackup(format!("the backup has form {format}: use a newer Berth")));
    }
    let plain = |name: &str| name.split('/').all(|part| !matches!(part, "" | "." | ".."));
    if contents.directory.contains('/')
        || !contents.files.keys().chain([&contents.directory]).all(|name| plain(name))
    {
        return Err(Error::NoBackup(format!("{} names files elsewhere", path.display())));
    }
    Ok(contents)
}

/// Moves `path`, and what SQLite keeps beside a database, to a name that is free.
fn move_aside(path: &Path) -> Result<(), FileError> {
    let with = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let free = (1..)
        .map(|number| format!(".before-restore-{number}"))
        .find(|suffix| !with(suffix).exists())
        .unwrap_or_default();
    for side in ["", "-wal", "-shm"] {
        let from = with(side);
        if from.exists() {
            let to = with(&format!("{free}{side}"));
            fs::rename(&from, &to).map_err(|source| FileError::new("moving", &from, source))?;
        }
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<(), FileError> {
    files::replace(to, &files::read(from)?, PRIVATE)
}

fn hash(file: &Path) -> Result<String, FileError> {
    Ok(Algorithm::Sha256.digest(&files::read(file)?).to_string())
}

fn names_in(directory: &Path) -> Result<Vec<String>, FileError> {
    let read = || {
        let names = fs::read_dir(directory)?.map(|entry| {
            let name = entry?.file_name().into_string();
            name.map_err(|_| io::Error::other("a name is not UTF-8"))
        });
        names.collect::<io::Result<Vec<String>>>()
    };
    read().map_err(|source| FileError::new("listing", directory, source))
}

/// The files of a backup, by their paths below its directory.
fn all_files(directory: &Path) -> Result<Vec<String>, FileError> {
    let mut all = Vec::new();
    for name in names_in(directory)? {
        if directory.join(&name).is_dir() {
            let below = names_in(&directory.join(&name))?;
            all.extend(below.into_iter().map(|file| format!("{name}/{file}")));
        } else if !name.starts_with(&format!("{DATABASE}-")) {
            all.push(name);
        }
    }
    all.sort();
    Ok(all)
}
