//! What is SQLite's own: the file, its connections, migrations and copies.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
    time::Duration,
};

use berth_shared::files::{lock, put_new, unfinished};
use log::LevelFilter;
use sqlx::{
    ConnectOptions, Row, SqliteConnection,
    migrate::{MigrateError, Migrator},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};

use super::Error;

pub(super) static MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");

/// How long a connection waits for another's write.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// What takes longer is a slow statement to whoever reads the log at its lowest level.
const SLOW: Duration = Duration::from_secs(1);

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
    SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT)
        // Clients choose how much is asked at once.
        .log_slow_statements(LevelFilter::Debug, SLOW)
        .connect()
        .await
        .map_err(|source| Error::Open { path: path.to_owned(), source: Box::new(source) })
}

/// Keeps every other process from migrating the database at `path` for as long as the file is open.
pub(super) fn migration_lock(path: &Path) -> io::Result<File> {
    lock(&path.with_extension("db.lock"))
}

/// Brings the database at `path` up to date; what an older version wrote is copied first.
pub(super) async fn migrate(connection: &mut SqliteConnection, path: &Path) -> Result<(), Error> {
    keep_older(connection, path).await?;
    MIGRATIONS.run_direct(None, connection, false).await.map_err(|error| match error {
        MigrateError::VersionMissing(_)
        | MigrateError::VersionTooNew(..)
        | MigrateError::VersionNotPresent(_) => Error::Newer(path.to_owned()),
        other => Error::Open { path: path.to_owned(), source: Box::new(other) },
    })
}

/// Copies a database that an older version wrote to `NAME.version-N`, before it is migrated.
async fn keep_older(connection: &mut SqliteConnection, path: &Path) -> Result<(), Error> {
    let known: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE name = '_sqlx_migrations')",
    )
    .fetch_one(&mut *connection)
    .await?;
    if !known {
        return Ok(());
    }
    let version: i64 = sqlx::query_scalar("SELECT COALESCE(MAX(version), 0) FROM _sqlx_migrations")
        .fetch_one(&mut *connection)
        .await?;
    let newest = MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or(0);
    let mut copy = path.as_os_str().to_owned();
    copy.push(format!(".version-{version}"));
    // A copy that is there is of an attempt that did not come to its end: it is whole itself.
    if version >= newest || Path::new(&copy).exists() {
        return Ok(());
    }
    snapshot(connection, Path::new(&copy)).await
}

/// What changes whenever another connection has committed.
pub(super) async fn data_version(connection: &mut SqliteConnection) -> Result<i64, Error> {
    let row = sqlx::query("PRAGMA data_version").fetch_one(connection).await?;
    Ok(row.try_get(0)?)
}

/// Writes a copy of what `connection` sees to the new file `to`, durably. `to` gets its name when
/// the copy is whole: one that breaks off is never taken for a copy.
pub(super) async fn snapshot(connection: &mut SqliteConnection, to: &Path) -> Result<(), Error> {
    let failed = |source: io::Error| Error::Open { path: to.to_owned(), source: Box::new(source) };
    // SQLite writes into an empty file that is there; one that it makes itself is everybody's to
    // read.
    let file = unfinished(to, crate::files::PRIVATE).map_err(failed)?;
    let name = file.path().to_str();
    let name = name.ok_or_else(|| failed(io::Error::other("the path is not UTF-8")))?;
    sqlx::query("VACUUM INTO $1").bind(name).execute(connection).await?;
    put_new(file, to).map_err(failed)
}
