//! Copies of the database while it is in use: whole or not there, and for their owner alone.

use std::{io, path::Path};

use berth_shared::files::{directory_of, sync_directory};
use sqlx::{ConnectOptions, Connection, SqliteConnection, sqlite::SqliteConnectOptions};

use super::{
    Error,
    store::{BUSY_TIMEOUT, Store},
};

impl Store {
    /// Writes a consistent copy of the database, as it is now, to the new file `to`, durably.
    ///
    /// # Errors
    /// When the file is there already, or cannot be written.
    pub async fn snapshot(&self, to: &Path) -> Result<(), Error> {
        snapshot(&mut *self.writer.lock().await, to).await
    }
}

/// Writes a copy of what `connection` sees to the new file `to`, durably. `to` gets its name when
/// the copy is whole: one that breaks off is never taken for a copy.
pub(super) async fn snapshot(connection: &mut SqliteConnection, to: &Path) -> Result<(), Error> {
    let failed = |source: io::Error| Error::Open { path: to.to_owned(), source: Box::new(source) };
    let directory = directory_of(to);
    // SQLite writes into an empty file that is there; one that it makes itself is everybody's to
    // read.
    let unfinished = tempfile::Builder::new().prefix(".unfinished-").tempfile_in(directory);
    let unfinished = unfinished.map_err(failed)?;
    let name = unfinished.path().to_str();
    let name = name.ok_or_else(|| failed(io::Error::other("the path is not UTF-8")))?;
    sqlx::query("VACUUM INTO $1").bind(name).execute(connection).await?;
    unfinished.as_file().sync_all().map_err(failed)?;
    unfinished.persist_noclobber(to).map_err(|error| failed(error.error))?;
    sync_directory(directory).map_err(failed)
}

/// The sequence in the database at `path`, whatever version wrote it; `None` when it cannot be
/// read.
pub async fn last_sequence(path: &Path) -> Option<i64> {
    let options = SqliteConnectOptions::new().filename(path).busy_timeout(BUSY_TIMEOUT);
    let mut connection = options.connect().await.ok()?;
    let query = sqlx::query_scalar("SELECT value FROM sequence");
    let value = query.fetch_one(&mut connection).await.ok();
    connection.close().await.ok()?;
    value
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    #[tokio::test]
    async fn a_copy_is_private_whole_and_never_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("auth.db")).await.unwrap();
        let to = dir.path().join("copy.db");
        store.snapshot(&to).await.unwrap();
        assert_eq!(fs::metadata(&to).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(last_sequence(&to).await, Some(0));
        fs::write(&to, "another").unwrap();
        assert!(store.snapshot(&to).await.is_err());
        assert_eq!(fs::read(&to).unwrap(), b"another");
        let names = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
        assert!(!names.into_iter().any(|name| name.to_string_lossy().starts_with(".unfinished")));
    }

    #[tokio::test]
    async fn what_is_no_database_has_no_sequence() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("auth.db");
        assert_eq!(last_sequence(&path).await, None);
        assert!(!path.exists());
        fs::write(&path, "this is no database, however long it may be").unwrap();
        assert_eq!(last_sequence(&path).await, None);
    }
}
