//! The open database: what reads it, what writes to it, and whose acts those are. The acts themselves
//! stand in the files of their tables.

use std::{path::Path, sync::Arc, time::Duration};

use berth_shared::{
    clock::Clock,
    database::{Bind, Connection, Settings, Statements},
    files::lock,
    sqlite::{foreign_schema, migrate, snapshot},
};
use sqlx::{Connection as _, SqliteConnection};
use tokio::sync::{MappedMutexGuard, Mutex, MutexGuard};

use super::{
    Error,
    hour::Hour,
    policy::Policy,
    postgres::{Held, Server},
    reader::Reader,
    sqlite::{MIGRATIONS, connect, create, identity},
};
use crate::audit::Author;

/// An open database.
#[derive(Debug)]
pub struct Database {
    pub(super) reader: Reader,
    pub(super) engine: Engine,
    /// Whose acts are done through it.
    pub(super) author: Author,
    pub(super) hour: Hour,
}

/// Where it is, and what writes there.
#[derive(Debug)]
pub(super) enum Engine {
    /// In a file: the one connection of this process that writes.
    Sqlite(Mutex<SqliteConnection>),
    /// At a server, which others work on too.
    Postgres(Arc<Server>),
}

/// A connection, for as long as something is asked.
pub(super) enum Asking<'d> {
    Reader(MappedMutexGuard<'d, SqliteConnection>),
    Writer(MutexGuard<'d, SqliteConnection>),
    Server(Held),
}

impl Statements for Asking<'_> {
    type Error = Error;

    fn connection(&mut self) -> Connection<'_> {
        match self {
            Self::Reader(connection) => Connection::Sqlite(connection),
            Self::Writer(connection) => Connection::Sqlite(connection),
            Self::Server(held) => held.connection(),
        }
    }
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
        let reader = Reader::of_file(path, file).await?;
        Self::over(reader, Engine::Sqlite(Mutex::new(writer))).await
    }

    /// Opens the database at a server of PostgreSQL, on which others may work too, and makes its tables or
    /// brings them up to date first.
    ///
    /// # Errors
    /// When the server does not answer, the tables cannot be kept in it, or a newer version of Berth needs
    /// them as they are.
    pub async fn connect(settings: &Settings) -> Result<Self, Error> {
        let server = Arc::new(Server::connect(settings).await?);
        let reader = Reader::of_server(Arc::clone(&server)).await?;
        Self::over(reader, Engine::Postgres(server)).await
    }

    async fn over(reader: Reader, engine: Engine) -> Result<Self, Error> {
        let author = Author::process(Clock::system());
        let database = Self { reader, engine, author, hour: Hour::default() };
        database.begin_hour().await?;
        Ok(database)
    }

    /// The same database, with what is done through it written down as done by `author`.
    #[must_use]
    pub fn acting(self, author: Author) -> Self {
        Self { author, ..self }
    }

    /// Whether others work on it from elsewhere, so that users and keys are in it too.
    pub fn is_shared(&self) -> bool {
        matches!(self.engine, Engine::Postgres(_))
    }

    /// What the database's clock says, as a time since the beginning of 1970, where others go by it too.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn time(&self) -> Result<Option<Duration>, Error> {
        match &self.engine {
            Engine::Sqlite(_) => Ok(None),
            Engine::Postgres(server) => server.time().await,
        }
    }

    /// The connection that writes to the file, fit to begin with. Where a disk was full, SQLite has rolled back by
    /// itself, and what the library then believes of the connection stays wrong: it is made anew.
    pub(super) async fn writer<'w>(
        &self,
        writer: &'w Mutex<SqliteConnection>,
    ) -> Result<MutexGuard<'w, SqliteConnection>, Error> {
        let mut writer = writer.lock().await;
        if writer.is_in_transaction() {
            // Behind the rollback of an act that was given up, if that is all.
            writer.ping().await?;
            if writer.is_in_transaction() {
                *writer = self.reader.connect_again().await?;
            }
        }
        Ok(writer)
    }

    /// A connection to look something up for a client.
    pub(super) async fn asking(&self) -> Result<Asking<'_>, Error> {
        match &self.engine {
            Engine::Sqlite(_) => Ok(Asking::Reader(self.reader.lock().await?)),
            Engine::Postgres(server) => server.hold().await.map(Asking::Server),
        }
    }

    /// A connection to read or change something by itself, which holds up no look at the policy.
    pub(super) async fn working(&self) -> Result<Asking<'_>, Error> {
        match &self.engine {
            Engine::Sqlite(writer) => self.writer(writer).await.map(Asking::Writer),
            Engine::Postgres(server) => server.hold().await.map(Asking::Server),
        }
    }

    /// The connection that writes to the file.
    pub(super) async fn file(&self) -> Result<MutexGuard<'_, SqliteConnection>, Error> {
        match &self.engine {
            Engine::Sqlite(writer) => self.writer(writer).await,
            Engine::Postgres(_) => Err(Error::OfFile),
        }
    }

    /// Makes one change that is no act.
    pub(super) async fn write(
        &self,
        statement: &'static str,
        values: impl Bind,
    ) -> Result<(), Error> {
        self.working().await?.run(statement, values).await?;
        Ok(())
    }

    /// Looks through the whole database.
    ///
    /// # Errors
    /// When it is damaged, or in no file.
    pub async fn check(&self) -> Result<(), Error> {
        let found: String = sqlx::query_scalar("PRAGMA integrity_check")
            .fetch_one(&mut *self.file().await?)
            .await?;
        if found == "ok" { Ok(()) } else { Err(Error::Damaged(found)) }
    }

    /// What is in the database and is not of this program's making, or is missing in it; `None` when
    /// there is no such thing. The database is one that has been migrated.
    ///
    /// # Errors
    /// When a database does not answer, or is in no file.
    pub async fn foreign_schema(&self) -> Result<Option<String>, Error> {
        Ok(foreign_schema(&mut *self.file().await?, &MIGRATIONS).await?)
    }

    /// Writes a consistent copy of the database, as it is now, to the new file `to`, durably.
    ///
    /// # Errors
    /// When the file is there already, or cannot be written; and where the database is in no file.
    pub async fn snapshot(&self, to: &Path) -> Result<(), Error> {
        Ok(snapshot(&mut *self.file().await?, to).await?)
    }

    /// From now on nothing can be written, as on a full disk.
    #[cfg(test)]
    pub(crate) async fn refuse_writes(&self) {
        let pragma = sqlx::query("PRAGMA query_only = ON");
        pragma.execute(&mut *self.file().await.unwrap()).await.unwrap();
    }

    /// Closes the database, and leaves one file of it, where it is in one.
    ///
    /// # Errors
    /// When what was written cannot be brought into that file.
    pub async fn close(self) -> Result<(), Error> {
        self.reader.close().await?;
        match self.engine {
            Engine::Sqlite(writer) => {
                let mut writer = writer.into_inner();
                sqlx::query("PRAGMA journal_mode = DELETE").execute(&mut writer).await?;
                Ok(writer.close().await?)
            }
            Engine::Postgres(server) => {
                server.close().await;
                Ok(())
            }
        }
    }

    /// The policy as it stands in the database now.
    ///
    /// # Errors
    /// When the database does not answer, or is no longer the one that was opened: changes to the
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
        .execute(&mut *database.file().await.unwrap())
        .await
        .unwrap();
        drop(database);
        assert!(matches!(Database::open(&path).await, Err(Error::Newer(_))));
    }

    #[tokio::test]
    async fn acts_go_on_behind_a_full_disk() {
        let dir = tempfile::tempdir().unwrap();
        let database = Database::open(&dir.path().join("auth.db")).await.unwrap();
        let pages: i64 = sqlx::query_scalar("PRAGMA page_count")
            .fetch_one(&mut *database.file().await.unwrap())
            .await
            .unwrap();
        let limit = async |pages: i64| {
            let pragma = sqlx::AssertSqlSafe(format!("PRAGMA max_page_count = {pages}"));
            sqlx::query(pragma).execute(&mut *database.file().await.unwrap()).await.unwrap();
        };
        limit(pages).await;
        let entries = vec![crate::audit::entry::Entry::gap(Clock::system().now(), 1); 1000];
        assert!(database.append_entries(&entries, 0).await.is_err());
        limit(i64::from(u32::MAX)).await;
        for _ in 0..3 {
            database.append_entries(&entries, 0).await.unwrap();
        }
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
