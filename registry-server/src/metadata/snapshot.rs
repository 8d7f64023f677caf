//! Copies of the database while it is in use.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use futures_util::future::BoxFuture;
use sqlx::SqliteConnection;
use tempfile::TempDir;

use super::{Database, Error, Transaction};

impl Database {
    /// Writes a consistent copy of the database, as it is now, to the new file `to`, and makes it
    /// durable. Nobody waits for it.
    ///
    /// # Errors
    /// When the file is there already, or cannot be written.
    pub fn snapshot(&self, to: PathBuf) -> BoxFuture<'static, Result<(), Error>> {
        let readers = self.readers().clone();
        Box::pin(async move {
            let mut connection = readers.acquire().await?;
            snapshot(&mut connection, &to).await
        })
    }

    /// What is wrong with the file itself; `None` when nothing is.
    pub(crate) async fn integrity(&self) -> Result<Option<String>, Error> {
        let found: String =
            sqlx::query_scalar("PRAGMA integrity_check(1)").fetch_one(self.readers()).await?;
        Ok(Some(found).filter(|found| found != "ok"))
    }

    /// A copy of the database in a directory of its own, which lasts as long as the result.
    pub(crate) async fn copy(&self) -> Result<(Self, TempDir), Error> {
        let beside = self.path().parent().unwrap_or(Path::new("."));
        let directory =
            tempfile::Builder::new().prefix("copy-").tempdir_in(beside).map_err(sqlx::Error::Io)?;
        let path = directory.path().join("registry.db");
        self.snapshot(path.clone()).await?;
        Ok((Self::open_copy(&path).await?, directory))
    }
}

impl Transaction<'_> {
    /// Drops all upload sessions: what a copy cannot go on with.
    pub(crate) async fn forget_uploads(&mut self) -> Result<(), Error> {
        sqlx::query("DELETE FROM uploads").execute(&mut *self.connection).await?;
        Ok(())
    }
}

/// Writes a copy of what `connection` sees to the new file `to`, durably.
pub(super) async fn snapshot(connection: &mut SqliteConnection, to: &Path) -> Result<(), Error> {
    sqlx::query("VACUUM INTO $1").bind(to.to_string_lossy()).execute(connection).await?;
    let sync = || {
        File::open(to)?.sync_all()?;
        to.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
    };
    sync().map_err(|error| Error::Query(sqlx::Error::Io(error)))
}
