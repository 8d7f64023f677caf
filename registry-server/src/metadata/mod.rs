//! The registry's metadata in SQLite: repositories, links, manifests, tags, upload sessions.
//!
//! One writer commits what is queued together; several connections read. A file per noun holds the
//! queries about it, each written once. Nothing here knows HTTP or what a right is.

pub(crate) mod blob;
pub(crate) mod cache;
pub(crate) mod collection;
pub(crate) mod inventory;
pub(crate) mod manifest;
pub(crate) mod repository;
mod snapshot;
pub(crate) mod tag;
pub(crate) mod upload;
pub(crate) mod verification;
mod writer;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures_util::future::BoxFuture;
use sqlx::{
    SqliteConnection, SqlitePool,
    migrate::{MigrateError, Migrator},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

pub(crate) use cache::Cache;
pub(crate) use writer::Transaction;
use writer::Writer;

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// Connections that read at once.
const READERS: u32 = 4;

/// How long a connection waits for another process that writes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Pages kept per connection, in KiB.
const PAGE_CACHE_KIB: &str = "-2000";

/// The database failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A query failed.
    #[error("asking the database")]
    Query(#[from] sqlx::Error),
    /// The schema cannot be brought to what this program needs.
    #[error("preparing the database")]
    Migrate(#[source] MigrateError),
    /// The database was written by a newer program.
    #[error("the database was written by a newer version of Berth: use that version, or newer")]
    Newer,
    /// The database was written by an older program.
    #[error("the database was written by an older version of Berth: start this one once")]
    Older,
    /// The database holds a value that cannot have been written by this program.
    #[error("the database holds {0:?} where it cannot be")]
    Corrupt(String),
    /// The writer has stopped, as it does during shutdown.
    #[error("the database is closing")]
    Closed,
}

/// A handle to the database; clones share it.
#[derive(Clone, Debug)]
pub struct Database {
    readers: SqlitePool,
    writer: Writer,
    cache: Arc<Cache>,
    path: Arc<Path>,
}

impl Database {
    /// Opens the database at `path`, making it where it is missing and migrating it where it is
    /// older.
    ///
    /// # Errors
    /// When it cannot be opened, or was written by a newer program.
    pub async fn open(path: &Path) -> Result<Self, Error> {
        let options = options(path);
        let mut connection = sqlx::ConnectOptions::connect(&options).await?;
        migrate(&mut connection, path).await?;
        Self::with_writer(connection, options, path).await
    }

    /// Opens a database whose schema is known to be right.
    async fn open_copy(path: &Path) -> Result<Self, Error> {
        let options = options(path);
        let connection = sqlx::ConnectOptions::connect(&options).await?;
        Self::with_writer(connection, options, path).await
    }

    async fn with_writer(
        connection: SqliteConnection,
        options: SqliteConnectOptions,
        path: &Path,
    ) -> Result<Self, Error> {
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .connect_with(options.read_only(true).create_if_missing(false))
            .await?;
        let cache = Arc::new(Cache::new());
        let writer = Writer::start(connection, Arc::clone(&cache));
        Ok(Self { readers, writer, cache, path: path.into() })
    }

    /// Opens the database of a server that runs, to read it beside that.
    ///
    /// # Errors
    /// When it cannot be opened, or was written by another version.
    pub async fn open_beside(path: &Path) -> Result<Self, Error> {
        let options = options(path).create_if_missing(false).pragma("query_only", "ON");
        let mut connection = sqlx::ConnectOptions::connect(&options).await?;
        if pending(&mut connection).await?.is_some() {
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
            let mut connection = sqlx::ConnectOptions::connect(&options).await?;
            if pending(&mut connection).await?.is_some() {
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
        if self.writer.has_ended() {
            return Err(Error::Closed);
        }
        sqlx::query("SELECT 1").execute(&self.readers).await?;
        Ok(())
    }

    /// Closes the connections that read; the writer ends with the last handle.
    pub(crate) async fn close(&self) {
        self.readers.close().await;
    }

    /// Runs `work` in a transaction of the writer and gives its result once it is committed. When
    /// `work` fails, nothing of it is kept.
    ///
    /// The work goes on when the caller is dropped.
    ///
    /// # Errors
    /// What `work` says, and when the commit fails.
    pub(crate) async fn write<T, E, W>(&self, work: W) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        W: for<'t> FnOnce(&'t mut Transaction<'_>) -> BoxFuture<'t, Result<T, E>> + Send + 'static,
    {
        self.writer.run(work).await
    }

    /// Where it lies.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn readers(&self) -> &SqlitePool {
        &self.readers
    }

    pub(crate) fn cache(&self) -> &Cache {
        &self.cache
    }
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT)
        .pragma("cache_size", PAGE_CACHE_KIB)
}

/// The version that the database has, if migrations are to be run on it; 0 for an empty one.
async fn pending(connection: &mut SqliteConnection) -> Result<Option<i64>, Error> {
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
async fn migrate(connection: &mut SqliteConnection, path: &Path) -> Result<(), Error> {
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

/// Reads a value with a grammar out of the database.
pub(crate) fn parse<T: std::str::FromStr>(text: &str) -> Result<T, Error> {
    text.parse().map_err(|_| Error::Corrupt(text.to_owned()))
}

/// Sizes are unsigned everywhere but in SQL.
pub(crate) fn unsigned(number: i64) -> Result<u64, Error> {
    u64::try_from(number).map_err(|_| Error::Corrupt(number.to_string()))
}

/// See [`unsigned`].
pub(crate) fn signed(number: u64) -> Result<i64, Error> {
    i64::try_from(number).map_err(|_| Error::Corrupt(number.to_string()))
}
