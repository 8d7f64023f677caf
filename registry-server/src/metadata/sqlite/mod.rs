//! What is SQLite's own: the file and its migrations, copies of it, and what a backup brings with it.
//! Its savepoints are the writer's, and its progress handlers also those of readers.

mod schema;
mod snapshot;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use log::LevelFilter;
use sqlx::{
    ConnectOptions, SqliteConnection,
    migrate::{MigrateError, Migrator},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};

use super::Error;

pub(super) static MIGRATIONS: Migrator = sqlx::migrate!("./migrations/sqlite");

/// How long a connection waits for another process that writes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// What takes longer is a slow statement to whoever reads the log at its lowest level.
const SLOW: Duration = Duration::from_secs(1);

/// Pages kept by the writer, in KiB.
const PAGE_CACHE_KIB: &str = "-2000";

pub(super) fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT)
        .pragma("cache_size", PAGE_CACHE_KIB)
        // Clients choose what is asked, and how much of it at once.
        .log_slow_statements(LevelFilter::Debug, SLOW)
}

/// The version that the database has, if migrations are to be run on it; 0 for an empty one.
pub(super) async fn pending(connection: &mut SqliteConnection) -> Result<Option<i64>, Error> {
    let known: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE name = '_sqlx_migrations')",
    )
    .fetch_one(&mut *connection)
    .await?;
    if !known {
        return Ok(Some(0));
    }
    let version: i64 = sqlx::query_scalar("SELECT COALESCE(MAX(version), 0) FROM _sqlx_migrations")
        .fetch_one(connection)
        .await?;
    let newest = MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or(0);
    if version > newest {
        return Err(Error::Newer);
    }
    Ok(Some(version).filter(|version| *version < newest))
}

/// Brings the schema to what this program needs. A database with content is copied first.
pub(super) async fn migrate(connection: &mut SqliteConnection, path: &Path) -> Result<(), Error> {
    if let Some(version) = pending(connection).await?.filter(|version| *version > 0) {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".version-{version}"));
        let copy = PathBuf::from(name);
        // A copy that is there is of an attempt that did not come to its end.
        if !copy.exists() {
            snapshot::snapshot(connection, &copy).await?;
        }
        tracing::info!(copy = %copy.display(), "the database is older: it was copied, and is migrated");
    }
    MIGRATIONS.run(connection).await.map_err(|error| match error {
        MigrateError::VersionMissing(_) => Error::Newer,
        error => Error::Migrate(error),
    })
}
