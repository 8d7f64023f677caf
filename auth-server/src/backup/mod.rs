//! Copies of what `auth-server` knows: database, signing keys, users.
//!
//! A backup is a directory with `backup.json` and one directory of files, which that names with
//! their hashes. `backup.json` is replaced last, so a backup that breaks off leaves the one before
//! whole.

mod restore;

use std::{
    collections::BTreeMap,
    fs::{self, DirEntry, Permissions},
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use berth_shared::{
    clock::{UnixSeconds, rfc3339},
    digest::Algorithm,
    files::sync_directory,
    unix_owner::{self, Identity},
};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use crate::{
    config::Config,
    database::{self, Database},
    files::{self, FileError, PRIVATE},
    keys,
    start_error::StartError,
};

pub use restore::{check, restore};

/// The form of a backup that this version writes and reads.
const FORMAT: u32 = 1;

const CONTENTS: &str = "backup.json";
const LOCK: &str = "lock";
const DATABASE: &str = "auth.db";
const HTPASSWD: &str = "htpasswd";
const KEYS: &str = "keys";
/// What the directories of files begin with.
const FILES: &str = "files-";

/// A backup could not be made, or not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or directory cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// Root does not go there.
    #[error(transparent)]
    Owner(#[from] unix_owner::Error),
    /// The database cannot be used.
    #[error(transparent)]
    Database(#[from] database::Error),
    /// The data directory cannot be had alone.
    #[error(transparent)]
    Locked(#[from] StartError),
    /// The server has no database, so that a backup would hold nothing.
    #[error(
        "there is no database {}, so nothing was backed up: --config FILE names another server",
        .0.display()
    )]
    NoDatabase(PathBuf),
    /// Everything is at a server of PostgreSQL.
    #[error(
        "users, grants, keys and audit are in the database {0}: copy it by PostgreSQL's own means, such as pg_dump \
         or a base backup, and keep the file that [keys] sealed_with names elsewhere"
    )]
    AtServer(String),
    /// What is there is none of ours.
    #[error("{} is neither empty nor a backup of auth-server: name a directory of its own", .0.display())]
    Foreign(PathBuf),
    /// Another backup is being written there.
    #[error("another backup is being written to {}", .0.display())]
    Busy(PathBuf),
    /// There is no backup, or it is of another version.
    #[error("{0}")]
    NoBackup(String),
    /// A file is not what it was when the backup was made.
    #[error(
        "{} is damaged or missing, and nothing was changed: restore another backup",
        .0.display()
    )]
    Damaged(PathBuf),
    /// Its database has what this program does not make, such as a trigger.
    #[error("{} is not as Berth makes it, and nothing was changed: it has {found}", path.display())]
    ForeignSchema {
        /// The database.
        path: PathBuf,
        /// What.
        found: String,
    },
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

/// What is at a server is copied there.
fn refuse_server(config: &Config) -> Result<(), Error> {
    match &config.server {
        Some(server) => Err(Error::AtServer(server.place().to_owned())),
        None => Ok(()),
    }
}

/// Copies what the server of `config` knows into `to`, while it runs or not.
///
/// # Errors
/// When something is missing or cannot be read, or `to` cannot be written; a backup that was there
/// stays then.
pub async fn backup(config: &Config, to: &Path, now: UnixSeconds) -> Result<Contents, Error> {
    refuse_server(config)?;
    // Opening would make it: an empty backup would take the place of a good one.
    let database = config.database();
    if !database.exists() {
        return Err(Error::NoDatabase(database));
    }
    files::make_directory(to)?;
    check_is_ours(to)?;
    let _lock = files::try_lock(&to.join(LOCK))?.ok_or_else(|| Error::Busy(to.to_owned()))?;
    let failed = |source| FileError::new("writing", to, source);
    let fresh = make_fresh(FILES, to)?;
    // SQLite goes by names alone: where root runs this, it is let into no directory of others.
    let is_others = Identity::of(to)?.foreign().is_some();
    let staged = is_others.then(|| make_fresh("backup-", &config.data)).transpose()?;
    let snapshot = staged.as_ref().unwrap_or(&fresh).path().join(DATABASE);
    Database::open(&database).await?.snapshot(&snapshot).await?;
    if is_others {
        copy(&snapshot, &fresh.path().join(DATABASE))?;
    }
    let mut names = vec![DATABASE.to_owned(), HTPASSWD.to_owned()];
    copy(&config.htpasswd, &fresh.path().join(HTPASSWD))?;
    let keys = fresh.path().join(KEYS);
    files::make_directory(&keys)?;
    // No rotation in between: the states must name the keys that are copied with them.
    let own = config.keys();
    let held = keys::hold(&own)?;
    for name in names_in(&own.directory)? {
        copy(&own.directory.join(&name), &keys.join(&name))?;
        names.push(format!("{KEYS}/{name}"));
    }
    drop(held);
    let mut hashes = BTreeMap::new();
    for name in names {
        let digest = hash(&files::read_long(&fresh.path().join(&name))?);
        hashes.insert(name, digest);
    }
    for directory in [keys.as_path(), fresh.path(), to] {
        sync_directory(directory).map_err(failed)?;
    }
    let directory = fresh.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
    let contents = Contents { format: FORMAT, made: rfc3339(now), directory, files: hashes };
    let text = serde_json::to_vec_pretty(&contents).map_err(|error| failed(error.into()))?;
    // From here on the files are the backup's.
    let _ = fresh.keep();
    files::replace(&to.join(CONTENTS), &text, PRIVATE)?;
    remove_others(to, &contents.directory)?;
    Ok(contents)
}

/// A new directory in `directory`, of the same owner's where root runs this, which goes when the
/// result is dropped.
fn make_fresh(prefix: &str, directory: &Path) -> Result<TempDir, FileError> {
    let _assumed = files::as_owner(directory)?;
    let mut builder = tempfile::Builder::new();
    builder.prefix(prefix).permissions(Permissions::from_mode(0o700));
    builder.tempdir_in(directory).map_err(|source| FileError::new("writing", directory, source))
}

/// Checks that nobody else's files are overwritten or removed: there is a backup in the directory,
/// or what is left of one that broke off, or nothing.
fn check_is_ours(to: &Path) -> Result<(), Error> {
    let names = names_in(to)?;
    if names.iter().any(|name| name == CONTENTS) {
        return read_contents(to).map(|_| ());
    }
    let is_left_over = names.iter().any(|name| name == LOCK)
        && names.iter().all(|name| name == LOCK || name.starts_with(FILES));
    if names.is_empty() || is_left_over { Ok(()) } else { Err(Error::Foreign(to.to_owned())) }
}

/// Removes the files of the backup before, and of those that broke off: there are keys in them.
fn remove_others(to: &Path, directory: &str) -> Result<(), FileError> {
    let is_other = |name: &String| name.starts_with(FILES) && name != directory;
    let _assumed = files::as_owner(to)?;
    for name in names_in(to)?.into_iter().filter(is_other) {
        let old = to.join(name);
        fs::remove_dir_all(&old).map_err(|source| FileError::new("removing", &old, source))?;
    }
    Ok(())
}

fn read_contents(backup: &Path) -> Result<Contents, Error> {
    let path = backup.join(CONTENTS);
    let text = files::read(&path).map_err(|error| {
        if error.is_forbidden() {
            return Error::File(error);
        }
        Error::NoBackup(format!("{} holds no backup of auth-server", backup.display()))
    })?;
    let contents: Contents = serde_json::from_slice(&text).map_err(|error| {
        Error::NoBackup(format!("{} is not of a backup of auth-server: {error}", path.display()))
    })?;
    if contents.format != FORMAT {
        let format = contents.format;
        return Err(Error::NoBackup(format!("the backup has form {format}: use a newer Berth")));
    }
    // What it names is put into the data directory: these files and no others.
    let is_plain = |name: &str| !name.contains('/') && !matches!(name, "" | "." | "..");
    let is_key = |name: &String| {
        name.strip_prefix(KEYS).and_then(|name| name.strip_prefix('/')).is_some_and(is_plain)
    };
    let mut names: Vec<_> = contents.files.keys().filter(|name| !is_key(name)).collect();
    names.sort();
    let has_keys = names.len() < contents.files.len();
    if names != [DATABASE, HTPASSWD] || !has_keys || !is_plain(&contents.directory) {
        let path = path.display();
        return Err(Error::NoBackup(format!(
            "{path} must name {DATABASE}, {HTPASSWD}, the keys, and nothing else"
        )));
    }
    Ok(contents)
}

fn copy(from: &Path, to: &Path) -> Result<(), FileError> {
    files::replace(to, &files::read_long(from)?, PRIVATE)
}

fn hash(bytes: &[u8]) -> String {
    Algorithm::Sha256.digest(bytes).to_string()
}

fn names_in(directory: &Path) -> Result<Vec<String>, FileError> {
    let name = |entry: io::Result<DirEntry>| {
        entry?.file_name().into_string().map_err(|_| io::Error::other("a name is not UTF-8"))
    };
    let names = fs::read_dir(directory).and_then(|entries| entries.map(name).collect());
    names.map_err(|source| FileError::new("listing", directory, source))
}
