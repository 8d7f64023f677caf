//! What is SQLite's own: the file and its migrations, and what a backup brings with it.
//! Its savepoints are the writer's, and its progress handlers also those of readers.

use std::path::Path;

use berth_shared::{
    database::Statements,
    sqlite::{self, foreign_schema},
};
use sqlx::{SqliteConnection, migrate::Migrator, sqlite::SqliteConnectOptions};

use super::{Database, Error};

pub(super) static MIGRATIONS: Migrator = sqlx::migrate!("./migrations/sqlite");

/// Pages kept by the writer, in KiB.
const PAGE_CACHE_KIB: &str = "-2000";

pub(super) fn options(path: &Path) -> SqliteConnectOptions {
    sqlite::options(path).create_if_missing(true).pragma("cache_size", PAGE_CACHE_KIB)
}

/// Brings the schema to what this program needs. A database with content is copied first.
pub(super) async fn migrate(connection: &mut SqliteConnection, path: &Path) -> Result<(), Error> {
    let copied = |copy: &Path| {
        tracing::info!(copy = %copy.display(), "the database is older: it was copied, and is migrated");
    };
    Ok(sqlite::migrate(connection, &MIGRATIONS, path, copied).await?)
}

impl Database {
    /// What is wrong with the file itself; `None` when nothing is.
    pub(crate) async fn integrity(&self) -> Result<Option<String>, Error> {
        let found: String = self.reader().await?.one("PRAGMA integrity_check(1)", ()).await?;
        Ok(Some(found).filter(|found| found != "ok"))
    }

    /// What is in the database and is not of this program's making, or is missing in it; `None` when
    /// there is no such thing. The database is one that has been migrated.
    ///
    /// # Errors
    /// When a database does not answer.
    pub(crate) async fn foreign_schema(&self) -> Result<Option<String>, Error> {
        Ok(foreign_schema(self.reader().await?.sqlite()?, &MIGRATIONS).await?)
    }
}

#[cfg(test)]
mod tests {
    use sqlx::{ConnectOptions, Connection};

    use super::*;

    #[tokio::test]
    async fn whatever_is_not_of_our_making_is_named() {
        for (statement, what) in [
            ("CREATE VIEW planted AS SELECT 1", Some("a view \"planted\"")),
            ("ALTER TABLE _sqlx_migrations ADD COLUMN of_a_later_sqlx TEXT", None),
            (
                "CREATE TRIGGER planted AFTER UPDATE ON _sqlx_migrations BEGIN SELECT 1; END",
                Some("a trigger \"planted\""),
            ),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("registry.db");
            Database::open(&path).await.unwrap().close().await;
            let options = SqliteConnectOptions::new().filename(&path);
            let mut connection = options.connect().await.unwrap();
            sqlx::query(statement).execute(&mut connection).await.unwrap();
            connection.close().await.unwrap();
            let database = Database::open(&path).await.unwrap();
            assert_eq!(database.foreign_schema().await.unwrap().as_deref(), what, "{statement}");
        }
    }
}
