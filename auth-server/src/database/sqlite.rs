//! What is SQLite's own: the file, its connections and migrations.

use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
};

use berth_shared::sqlite::options;
use sqlx::{ConnectOptions, SqliteConnection, migrate::Migrator};

use super::Error;

pub(super) static MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");

/// Device and inode: which file it is, whatever it is called.
pub(super) type FileIdentity = (u64, u64);

/// Makes an empty file that only its owner may read; SQLite gives its side files the same mode.
/// A database that is there is not opened here: closing it would let go of the locks that SQLite
/// holds on it elsewhere in this process.
pub(super) fn create(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    match options.write(true).create_new(true).mode(crate::files::PRIVATE).open(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Which file lies at `path` now.
pub(super) fn identity(path: &Path) -> io::Result<FileIdentity> {
    fs::metadata(path).map(|meta| (meta.dev(), meta.ino()))
}

/// A connection with everything set that this program relies on.
pub(super) async fn connect(path: &Path) -> Result<SqliteConnection, Error> {
    let connected = options(path).connect().await;
    connected.map_err(|source| Error::Open(path.to_owned(), source.into()))
}

/// What changes whenever another connection has committed.
pub(super) async fn data_version(connection: &mut SqliteConnection) -> Result<i64, Error> {
    Ok(sqlx::query_scalar("PRAGMA data_version").fetch_one(connection).await?)
}
