//! The open database: what reads it, what writes to it, and whose acts those are. The acts themselves
//! stand in the files of their tables.

use std::{path::Path, sync::Arc};

use berth_shared::{
    clock::Clock,
    database::{Bind, Statements},
    files::lock,
    sqlite::{foreign_schema, migrate, snapshot},
};
use sqlx::{Connection, SqliteConnection};
use tokio::sync::Mutex;

use super::{
    Error,
    policy::Policy,
    reader::Reader,
    sqlite::{MIGRATIONS, connect, create, identity},
};
use crate::audit::Author;

/// An open database.
#[derive(Debug)]
pub struct Database {
    pub(super) reader: Reader,
    /// The one connection of this process that writes.
    pub(super) writer: Mutex<SqliteConnection>,
    /// Whose acts are done through it.
    pub(super) author: Author,
}

impl Database {
    /// Opens the database at `path`, and makes it or brings it up to date first.
    ///
    /// # Errors
    /// When it cannot be opened, or a newer version of Berth has written to it.
    pub async fn open(path: &Path) -> Result<Self, Error> {
        let failed = |source: std::io::Error| Error::Open(path.to_owned(), source.into());
        create(path).map_err(failed)?;
        let file = identity(path).map_err(failed)?;
        let mut writer = connect(path).await?;
        // Server and authctl may both be the first to open it.
        let lock = lock(&path.with_extension("db.lock")).map_err(failed)?;
        migrate(&mut writer, &MIGRATIONS, path, |_| ()).await?;
        drop(lock);
        let reader = Reader::open(path, file).await?;
        Ok(Self { reader, writer: Mutex::new(writer), author: Author::process(Clock::system()) })
    }

    /// The same database, with what is done through it written down as done by `author`.
    #[must_use]
    pub fn acting(self, author: Author) -> Self {
        Self { author, ..self }
    }

    /// Makes one change that is no act.
    pub(super) async fn write(
        &self,
        statement: &'static str,
        values: impl Bind,
    ) -> Result<(), Error> {
        self.writer.lock().await.run(statement, values).await?;
        Ok(())
    }

    /// Looks through the whole database.
    ///
    /// # Errors
    /// When it is damaged.
    pub async fn check(&self) -> Result<(), Error> {
        let found: String = sqlx::query_scalar("PRAGMA integrity_check")
            .fetch_one(&mut *self.writer.lock().await)
            .await?;
        if found == "ok" { Ok(()) } else { Err(Error::Damaged(found)) }
    }

    /// What is in the database and is not of this program's making, or is missing in it; `None` when
    /// there is no such thing. The database is one that has been migrated.
    ///
    /// # Errors
    /// When a database does not answer.
    pub async fn foreign_schema(&self) -> Result<Option<String>, Error> {
        Ok(foreign_schema(&mut *self.writer.lock().await, &MIGRATIONS).await?)
    }

    /// Writes a consistent copy of the database, as it is now, to the new file `to`, durably.
    ///
    /// # Errors
    /// When the file is there already, or cannot be written.
    pub async fn snapshot(&self, to: &Path) -> Result<(), Error> {
        Ok(snapshot(&mut *self.writer.lock().await, to).await?)
    }

    /// From now on nothing can be written, as on a full disk.
    #[cfg(test)]
    pub(crate) async fn refuse_writes(&self) {
        let pragma = sqlx::query("PRAGMA query_only = ON");
        pragma.execute(&mut *self.writer.lock().await).await.unwrap();
    }

    /// Closes the database, and leaves one file of it.
    ///
    /// # Errors
    /// When what was written cannot be brought into that file.
    pub async fn close(self) -> Result<(), Error> {
        self.reader.close().await?;
        let mut writer = self.writer.into_inner();
        sqlx::query("PRAGMA journal_mode = DELETE").execute(&mut writer).await?;
        Ok(writer.close().await?)
    }

    /// The policy as it stands in the database now.
    ///
    /// # Errors
    /// When the database does not answer, or is no longer the file that was opened: changes to the
    /// new one would never be seen.
    pub async fn policy(&self) -> Result<Arc<Policy>, Error> {
        self.reader.policy().await
    }

    /// How many looks at the database there were, and how many found that it had changed.
    pub(crate) fn looks_and_reads(&self) -> (u64, u64) {
        self.reader.looks_and_reads()
    }
}

#[cfg(test)]
mod tests {
    use berth_shared::rights::Effect;
    use sqlx::migrate::Migrator;

    use super::*;

    #[tokio::test]
    async fn a_database_of_a_newer_version_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("auth.db");
        let database = Database::open(&path).await.unwrap();
        sqlx::query(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
             VALUES (9999, 'later', TRUE, X'00', 0)",
        )
        .execute(&mut *database.writer.lock().await)
        .await
        .unwrap();
        drop(database);
        assert!(matches!(Database::open(&path).await, Err(Error::Newer(_))));
    }

    #[tokio::test]
    async fn an_older_database_is_copied_and_then_migrated() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("auth.db");
        // As the first version wrote it.
        let first = MIGRATIONS.iter().filter(|migration| migration.version == 1);
        let first = Migrator::with_migrations(first.cloned().collect());
        create(&path).unwrap();
        let mut connection = connect(&path).await.unwrap();
        first.run_direct(None, &mut connection, false).await.unwrap();
        sqlx::query(
            "INSERT INTO grants (grantee, pattern, actions, created)
             VALUES ('andrew', 'team/**', 'push', 0)",
        )
        .execute(&mut connection)
        .await
        .unwrap();
        connection.close().await.unwrap();
        let policy = Database::open(&path).await.unwrap().policy().await.unwrap();
        let rules = policy.rules();
        assert_eq!(rules.len(), 1);
        assert_eq!(
            (rules[0].effect, rules[0].actions.to_string().as_str()),
            (Effect::Allow, "push")
        );
        assert!(dir.path().join("auth.db.version-1").exists());
    }
}
