//! A server's database where it is a file of SQLite: how it is opened, brought up to date, copied and
//! looked through. What is in its tables is the server's affair.

mod schema;
mod time;

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use log::LevelFilter;
use sqlx::{
    ConnectOptions, SqliteConnection,
    migrate::{MigrateError, Migrator},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};

pub use schema::foreign_schema;

use crate::files::{put_new, unfinished};

/// How long a connection waits for another's write.
pub const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// What takes longer is a slow statement to whoever reads the log at its lowest level.
const SLOW: Duration = Duration::from_secs(1);

/// The file cannot be worked on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be made or written.
    #[error("writing {}", .0.display())]
    File(PathBuf, #[source] io::Error),
    /// The schema cannot be brought to what the program needs.
    #[error("preparing the database {}", .0.display())]
    Migrate(PathBuf, #[source] MigrateError),
    /// A newer program has written to it.
    #[error("the database {} was written by a newer version", .0.display())]
    Newer(PathBuf),
    /// A query failed.
    #[error("asking the database")]
    Query(#[from] sqlx::Error),
}

/// Everything that the servers rely on in a connection to the file at `path`.
#[must_use]
pub fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT)
        // Clients choose what is asked, and how much of it at once.
        .log_slow_statements(LevelFilter::Debug, SLOW)
}

/// The version that the database at `path` has, if `migrations` are to be run on it; 0 for an empty
/// one.
///
/// # Errors
/// When it does not answer, or a newer program has written to it.
pub async fn pending(
    connection: &mut SqliteConnection,
    migrations: &Migrator,
    path: &Path,
) -> Result<Option<i64>, Error> {
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
    let newest = migrations.iter().map(|migration| migration.version).max().unwrap_or(0);
    if version > newest {
        return Err(Error::Newer(path.to_owned()));
    }
    Ok(Some(version).filter(|version| *version < newest))
}

/// Brings the schema of the database at `path` to what the program needs. What an older program wrote
/// is copied to `NAME.version-N` first, and `copied` is told where that is.
///
/// # Errors
/// As [`pending`], and when the copy cannot be written or the schema not be changed.
pub async fn migrate(
    connection: &mut SqliteConnection,
    migrations: &Migrator,
    path: &Path,
    copied: impl FnOnce(&Path),
) -> Result<(), Error> {
    if let Some(version) = pending(connection, migrations, path).await?.filter(|it| *it > 0) {
        let mut copy = path.as_os_str().to_owned();
        copy.push(format!(".version-{version}"));
        let copy = Path::new(&copy);
        // A copy that is there is of an attempt that did not come to its end: it is whole itself.
        if !copy.exists() {
            snapshot(connection, copy).await?;
        }
        copied(copy);
    }
    // `run` does not compile in a future that is sent to another thread.
    migrations.run_direct(None, connection, false).await.map_err(|error| match error {
        MigrateError::VersionMissing(_) => Error::Newer(path.to_owned()),
        error => Error::Migrate(path.to_owned(), error),
    })
}

/// Writes a copy of what `connection` sees to the new file `to`, durably. `to` gets its name when
/// the copy is whole: one that breaks off is never taken for a copy.
///
/// # Errors
/// When the file is there already, or cannot be written.
pub async fn snapshot(connection: &mut SqliteConnection, to: &Path) -> Result<(), Error> {
    let failed = |error| Error::File(to.to_owned(), error);
    // SQLite writes into an empty file that is there; one that it makes itself is everybody's to
    // read.
    let file = unfinished(to, 0o600).map_err(failed)?;
    let name = file.path().to_str();
    let name = name.ok_or_else(|| failed(io::Error::other("the path is not UTF-8")))?;
    sqlx::query("VACUUM INTO $1").bind(name).execute(connection).await?;
    put_new(file, to).map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    #[tokio::test]
    async fn a_copy_is_private_whole_and_never_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let options = options(&dir.path().join("a.db")).create_if_missing(true);
        let mut connection = options.connect().await.unwrap();
        let to = dir.path().join("copy.db");
        snapshot(&mut connection, &to).await.unwrap();
        assert_eq!(fs::metadata(&to).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&to, "another").unwrap();
        assert!(snapshot(&mut connection, &to).await.is_err());
        assert_eq!(fs::read(&to).unwrap(), b"another");
        let names = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
        assert!(!names.into_iter().any(|name| name.to_string_lossy().starts_with(".unfinished")));
    }
}
