//! Copies of the database while it is in use.

use std::{
    io,
    path::{Path, PathBuf},
};

use berth_shared::files::{directory_of, put_new, unfinished};
use futures_util::future::BoxFuture;
use sqlx::SqliteConnection;
use tempfile::TempDir;

use crate::metadata::{Database, Error};

impl Database {
    /// Writes a consistent copy of the database, as it is now, to the new file `to`, and makes it
    /// durable. Nobody waits for it.
    ///
    /// # Errors
    /// When the file is there already, or cannot be written.
    pub fn snapshot(&self, to: PathBuf) -> BoxFuture<'static, Result<(), Error>> {
        let readers = self.readers.clone();
        Box::pin(async move {
            let mut reader = readers.get().await?;
            snapshot(&mut reader, &to).await
        })
    }

    /// What is wrong with the file itself; `None` when nothing is.
    pub(crate) async fn integrity(&self) -> Result<Option<String>, Error> {
        let found: String = sqlx::query_scalar("PRAGMA integrity_check(1)")
            .fetch_one(&mut *self.reader().await?)
            .await?;
        Ok(Some(found).filter(|found| found != "ok"))
    }

    /// A copy of the database in a directory of its own, which lasts as long as the result.
    pub(crate) async fn copy(&self) -> Result<(Self, TempDir), Error> {
        let beside = directory_of(self.path());
        let directory =
            tempfile::Builder::new().prefix("copy-").tempdir_in(beside).map_err(sqlx::Error::Io)?;
        let path = directory.path().join("registry.db");
        self.snapshot(path.clone()).await?;
        Ok((Self::open_copy(&path).await?, directory))
    }
}

/// Writes a copy of what `connection` sees to the new file `to`, durably. `to` gets its name when
/// the copy is whole: one that breaks off is never taken for a copy.
pub(super) async fn snapshot(connection: &mut SqliteConnection, to: &Path) -> Result<(), Error> {
    // SQLite writes into an empty file that is there; one that it makes itself is for everybody to
    // read.
    let file = unfinished(to, 0o600).map_err(sqlx::Error::Io)?;
    let name = file.path().to_str();
    let name = name.ok_or_else(|| sqlx::Error::Io(io::Error::other("the path is not UTF-8")))?;
    sqlx::query("VACUUM INTO $1").bind(name).execute(connection).await?;
    Ok(put_new(file, to).map_err(sqlx::Error::Io)?)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    #[tokio::test]
    async fn a_copy_is_private_whole_and_never_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let database = Database::open(&dir.path().join("registry.db")).await.unwrap();
        let to = dir.path().join("copy.db");
        database.snapshot(to.clone()).await.unwrap();
        assert_eq!(fs::metadata(&to).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&to, "another").unwrap();
        assert!(database.snapshot(to.clone()).await.is_err());
        assert_eq!(fs::read(&to).unwrap(), b"another");
        let names = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
        assert!(!names.into_iter().any(|name| name.to_string_lossy().starts_with(".unfinished")));
    }
}
