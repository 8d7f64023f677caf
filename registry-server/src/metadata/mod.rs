//! The registry's metadata in SQLite or PostgreSQL: repositories, links, manifests, tags, upload sessions.
//!
//! In SQLite one writer commits what is queued together, and several connections read; in PostgreSQL each
//! write is a transaction of its own, with locks. A file per noun holds the queries about it, each written
//! once; what is an engine's own lies in `sqlite` and `writer`, or in `postgres` and `postgres_writer`.
//! Nothing here knows HTTP or what a right is.

mod asker;
pub(crate) mod blob;
pub(crate) mod cache;
pub(crate) mod collection;
mod copy;
pub(crate) mod dead;
pub(crate) mod deletion;
mod error;
#[cfg(test)]
mod faults;
pub(crate) mod import;
pub mod inventory;
mod key;
pub(crate) mod lease;
mod list;
mod lock;
pub(crate) mod manifest;
pub(crate) mod origin;
pub mod postgres;
mod postgres_writer;
#[cfg(test)]
mod races;
mod readers;
pub(crate) mod referrer;
pub(crate) mod repository;
mod sqlite;
pub(crate) mod switch;
pub(crate) mod tag;
pub(crate) mod totals;
mod touch;
mod transaction;
pub(crate) mod upload;
pub(crate) mod verification;
mod writer;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use berth_shared::{
    database::{Statements, TIME, no_answer},
    digest::Digest,
    sqlite::pending,
};
use futures_util::future::BoxFuture;
use sqlx::{
    ConnectOptions, PgPool, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};
use tokio::time::timeout;

pub(crate) use asker::{Asker, Turns};
pub(crate) use cache::Cache;
pub use error::Error;
pub(crate) use key::Key;
use readers::{Reader, Readers};
use sqlite::{MIGRATIONS, migrate, options};
use transaction::Transaction;
use writer::Writer;

/// How long reading connections are waited for when the database closes.
const CLOSE_TIME: Duration = Duration::from_millis(500);

/// How long a server of the database may take to say that it is there.
const CHECK_TIME: Duration = Duration::from_secs(2);

/// Rows by what tells them apart, each as it can be read: what cannot be is to be reported and
/// skipped, not to stop the rest.
pub(crate) type Rows<K, R> = Vec<(K, Result<R, Error>)>;

/// What the cache keeps.
#[derive(Debug, Clone)]
enum Value {
    Blob(blob::LinkedBlob),
    Manifest(Arc<manifest::Manifest>),
    Tag(Digest),
}

/// A handle to the database; clones share it.
#[derive(Clone, Debug)]
pub struct Database {
    readers: Readers,
    engine: Engine,
    cache: Arc<Cache>,
}

/// Where it is, and who writes there.
#[derive(Clone, Debug)]
enum Engine {
    Sqlite {
        path: Arc<Path>,
        /// What is being read is given up.
        closing: Arc<AtomicBool>,
        writer: Writer,
    },
    Postgres(postgres_writer::Writer),
}

impl Database {
    /// Opens the database at `path`, making it where it is missing and migrating it where it is
    /// older.
    ///
    /// # Errors
    /// When it cannot be opened, or was written by a newer program.
    pub async fn open(path: &Path) -> Result<Self, Error> {
        Self::open_with(options(path), path).await
    }

    /// As [`open`](Self::open), and leaves it to the system when commits reach the disk.
    ///
    /// # Errors
    /// As `open`.
    pub async fn open_without_durability(path: &Path) -> Result<Self, Error> {
        Self::open_with(options(path).synchronous(SqliteSynchronous::Off), path).await
    }

    async fn open_with(options: SqliteConnectOptions, path: &Path) -> Result<Self, Error> {
        let mut connection = options.connect().await?;
        migrate(&mut connection, path).await?;
        Self::with_writer(connection, options, path).await
    }

    async fn with_writer(
        connection: SqliteConnection,
        options: SqliteConnectOptions,
        path: &Path,
    ) -> Result<Self, Error> {
        // VACUUM INTO writes another file, which `query_only` would not let it.
        let read_only =
            options.read_only(true).create_if_missing(false).pragma("query_only", "OFF");
        let closing = Arc::new(AtomicBool::new(false));
        let readers = Readers::connect(readers::pool(&closing), read_only).await?;
        let cache = Arc::new(Cache::new());
        let writer = Writer::start(connection, Arc::clone(&cache)).await?;
        let engine = Engine::Sqlite { path: path.into(), closing, writer };
        Ok(Self { readers, engine, cache })
    }

    /// Opens the database at a PostgreSQL server, making its tables where they are missing and migrating
    /// them where they are older.
    ///
    /// # Errors
    /// When the server does not answer, is none that registries can be kept in, or the tables were
    /// written by a newer program.
    pub async fn connect(settings: &postgres::Settings) -> Result<Self, Error> {
        Ok(Self::over(postgres::open(settings).await?, settings))
    }

    /// The same to read beside a server that runs.
    ///
    /// # Errors
    /// As [`connect`](Self::connect), and when the tables were written by another version.
    pub async fn connect_beside(settings: &postgres::Settings) -> Result<Self, Error> {
        Ok(Self::over(postgres::open_beside(settings).await?, settings))
    }

    /// Half of the connections are for lookups, a quarter for the server's own, and a quarter write.
    fn over(pool: PgPool, settings: &postgres::Settings) -> Self {
        let server = &settings.server;
        let quarter = (server.connections_max as usize / 4).max(1);
        let cache = Arc::new(Cache::shared());
        let readers =
            Readers::of_postgres(pool.clone(), server.answer_time(), 2 * quarter, quarter);
        let writer = postgres_writer::Writer::new(pool, settings, quarter, Arc::clone(&cache));
        Self { readers, engine: Engine::Postgres(writer), cache }
    }

    /// Opens the database of a server that runs, to read it beside that.
    ///
    /// # Errors
    /// When it cannot be opened, or was written by another version.
    pub async fn open_beside(path: &Path) -> Result<Self, Error> {
        let options = options(path).create_if_missing(false).pragma("query_only", "ON");
        let mut connection = options.connect().await?;
        if pending(&mut connection, &MIGRATIONS, path).await?.is_some() {
            return Err(Error::Older);
        }
        Self::with_writer(connection, options, path).await
    }

    /// Opens a copy that nobody else uses, and migrates it where it is older. All of it is in the
    /// one file, so that it can be moved once the last write is through.
    ///
    /// # Errors
    /// When it cannot be opened, or was written by a newer program.
    pub fn open_at_rest(path: PathBuf) -> BoxFuture<'static, Result<Self, Error>> {
        Box::pin(async move {
            let options =
                options(&path).create_if_missing(false).journal_mode(SqliteJournalMode::Delete);
            let mut connection = options.connect().await?;
            if pending(&mut connection, &MIGRATIONS, &path).await?.is_some() {
                // `run` does not compile in a future that is sent to another thread.
                let migrated = MIGRATIONS.run_direct(None, &mut connection, false).await;
                migrated.map_err(Error::Migrate)?;
            }
            Self::with_writer(connection, options, &path).await
        })
    }

    /// Whether the database answers and can be written.
    ///
    /// # Errors
    /// When it does not, or the writer has ended.
    pub async fn check(&self) -> Result<(), Error> {
        let has_ended = match &self.engine {
            Engine::Sqlite { writer, .. } => writer.has_ended(),
            Engine::Postgres(writer) => writer.has_ended(),
        };
        if has_ended {
            return Err(Error::Closed);
        }
        let asked = async { self.reader().await?.run("SELECT 1", ()).await.map(drop) };
        match &self.engine {
            Engine::Sqlite { .. } => asked.await,
            // A balancer that asks has others to go to.
            Engine::Postgres(_) => {
                let answer = timeout(CHECK_TIME, asked).await;
                answer.unwrap_or_else(|_| Err(Error::Away(no_answer())))
            }
        }
    }

    /// Closes all connections: when this returns, nothing of the database is open, and all of it is
    /// in its one file. What is not begun fails, and what is at work may come to its end, within
    /// seconds.
    pub(crate) async fn close(&self) {
        match &self.engine {
            Engine::Sqlite { closing, writer, .. } => {
                closing.store(true, Ordering::Relaxed);
                // The last connection brings the journal into the database, and those that read may
                // not. One that still reads leaves the journal to the next start.
                let _ = timeout(CLOSE_TIME, self.readers.close()).await;
                writer.close().await;
            }
            Engine::Postgres(writer) => {
                if timeout(CLOSE_TIME, writer.close()).await.is_err() {
                    tracing::warn!("the database is still asked at the end");
                }
            }
        }
    }

    /// Lets a write wait no longer for its turn than this, and be at work for a third of it.
    pub(crate) fn limit_writes(&self, most: Duration) {
        match &self.engine {
            Engine::Sqlite { writer, .. } => writer.set_limit(most),
            // Its statements have their time there.
            Engine::Postgres(_) => {}
        }
    }

    /// What its clock says, as a time since the beginning of 1970, where other servers may go by that too;
    /// and how long that was on its way.
    pub(crate) async fn time(&self) -> Result<Option<(Duration, Duration)>, Error> {
        if let Engine::Sqlite { .. } = self.engine {
            return Ok(None);
        }
        let mut reader = self.reader().await?;
        let asked = Instant::now();
        let millis: u64 = reader.one(TIME, ()).await?;
        let way = asked.elapsed();
        Ok(Some((Duration::from_millis(millis) + way / 2, way)))
    }

    /// The connections to it, where it is a server.
    pub(crate) fn connections(&self) -> Option<postgres::Connections> {
        match &self.engine {
            Engine::Sqlite { .. } => None,
            Engine::Postgres(writer) => Some(writer.connections()),
        }
    }

    /// The file that it is in, if it is in one.
    pub(crate) fn path(&self) -> Option<&Path> {
        match &self.engine {
            Engine::Sqlite { path, .. } => Some(path),
            Engine::Postgres(_) => None,
        }
    }

    /// A connection to look things up with, when it is the turn of the [`Asker`] in whose name this
    /// is called. Whoever holds one waits for nothing but what it asks.
    async fn reader(&self) -> Result<Reader, Error> {
        self.readers.get().await
    }

    pub(crate) fn cache(&self) -> &Cache {
        &self.cache
    }
}

#[cfg(test)]
mod tests {
    use berth_shared::clock::UnixSeconds;
    use sqlx::Connection;

    use super::*;

    /// A database as the first version of the program left it, with one repository.
    async fn make_old(path: &Path) {
        let mut connection = SqliteConnection::connect_with(&options(path)).await.unwrap();
        MIGRATIONS.run_to(1, &mut connection).await.unwrap();
        let insert = "INSERT INTO repositories (name) VALUES ('team/app')";
        sqlx::query(insert).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }

    async fn version_of(path: &Path) -> i64 {
        let options = SqliteConnectOptions::new().filename(path);
        let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
        let query = "SELECT MAX(version) FROM _sqlx_migrations";
        sqlx::query_scalar(query).fetch_one(&mut connection).await.unwrap()
    }

    #[tokio::test]
    async fn an_older_database_is_copied_and_then_migrated() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("registry.db");
        make_old(&path).await;
        assert!(matches!(Database::open_beside(&path).await, Err(Error::Older)));
        let database = Database::open(&path).await.unwrap();
        assert_eq!(database.count_repositories().await.unwrap(), 1);
        let copy = directory.path().join("registry.db.version-1");
        assert_eq!(version_of(&copy).await, 1);
        // And a copy at rest is migrated as it is, without a second copy.
        let copied = Database::open_at_rest(copy.clone()).await.unwrap();
        assert_eq!(copied.count_repositories().await.unwrap(), 1);
        assert!(!directory.path().join("registry.db.version-1.version-1").exists());
    }

    #[tokio::test]
    async fn what_was_touched_before_the_touches_lay_apart_still_was() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("registry.db");
        let mut connection = SqliteConnection::connect_with(&options(&path)).await.unwrap();
        MIGRATIONS.run_to(2, &mut connection).await.unwrap();
        let digest = berth_shared::digest::Algorithm::Sha256.digest(b"{}");
        let insert = "INSERT INTO repositories (name) VALUES ('team/app')";
        sqlx::query(insert).execute(&mut connection).await.unwrap();
        let insert = "INSERT INTO manifests
            (repository, digest, media_type, size, pushed, bytes, touched)
            VALUES (1, $1, 'a/b', 2, 7, CAST('{}' AS BLOB), 8)";
        sqlx::query(insert).bind(digest.as_str()).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        let database = Database::open(&path).await.unwrap();
        let manifest = database.manifest(&"team/app".parse().unwrap(), &digest).await.unwrap();
        assert_eq!(manifest.map(|manifest| manifest.touched), Some(UnixSeconds::new(8)));
    }

    #[tokio::test]
    async fn a_new_database_has_no_copy_and_a_newer_one_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("registry.db");
        let database = Database::open(&path).await.unwrap();
        database
            .write((), |tx, ()| {
                Box::pin(async move {
                    let insert = "INSERT INTO _sqlx_migrations
                        (version, description, success, checksum, execution_time)
                        VALUES (1000000, 'from the future', TRUE, x'00', 0)";
                    tx.run(insert, ()).await
                })
            })
            .await
            .unwrap();
        database.close().await;
        drop(database);
        assert!(matches!(Database::open(&path).await, Err(Error::Newer)));
        assert!(matches!(Database::open_beside(&path).await, Err(Error::Newer)));
        // The connections of the tries before end in threads of their own, and until then the
        // journal's mode cannot be changed.
        let at_rest = loop {
            match Database::open_at_rest(path.clone()).await {
                Err(Error::Query(_)) => tokio::task::yield_now().await,
                tried => break tried,
            }
        };
        assert!(matches!(at_rest, Err(Error::Newer)));
        let copies = std::fs::read_dir(directory.path()).unwrap().filter(|entry| {
            entry.as_ref().unwrap().file_name().to_string_lossy().contains(".version-")
        });
        assert_eq!(copies.count(), 0);
    }
}
