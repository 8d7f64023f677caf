//! The connections that read, and whose turn it is to have one.
//!
//! Whoever looks something up gets a connection here and nowhere else, so that no request can forget
//! its turn, whatever its method. A turn is held for what is asked at once, never while a body, a
//! place or another turn is awaited.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use berth_shared::{
    database::{Connection, Statements, no_answer, returned},
    serve::budget::Reservation,
};
use futures_util::FutureExt;
use log::LevelFilter;
use sqlx::{
    Connection as _, PgPool, Postgres, Sqlite, SqliteConnection, SqlitePool,
    pool::PoolConnection,
    sqlite::{SqliteConnectOptions, SqlitePoolOptions},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::{Error, Turns};

/// Connections that read for clients at once.
const LOOKUPS_MAX: u32 = 8;

/// Connections that read for the server itself: collection, verification, `/readyz`, the verbs. What
/// those ask may take long, and no client waits behind it.
const OWN_MAX: u32 = 4;

/// All of those.
const CONNECTIONS_MAX: u32 = LOOKUPS_MAX + OWN_MAX;

/// How long the server's own work waits: `/readyz` has to say something.
const OWN_WAIT_MAX: Duration = Duration::from_secs(30);

/// After how many steps of SQLite's machine a reading connection looks whether the database closes.
const STEPS: i32 = 10_000;

/// Pages kept per connection, in KiB. There are a dozen of them, over the system's own cache.
const PAGE_CACHE_KIB: &str = "-1000";

/// The connections; clones share them.
#[derive(Clone, Debug)]
pub(super) struct Readers {
    pool: Pool,
    lookups: Turns,
    own: Arc<Semaphore>,
}

#[derive(Clone, Debug)]
enum Pool {
    Sqlite(SqlitePool),
    Postgres(PgPool, Duration),
}

/// A connection that reads, until dropped.
pub(super) struct Reader {
    connection: Pooled,
    /// A transaction begins: whether it has, nobody knows before the answer.
    begins: bool,
    turn: Option<Turn>,
}

enum Pooled {
    Sqlite(PoolConnection<Sqlite>),
    Postgres(PoolConnection<Postgres>, Duration),
}

/// Several statements of one moment.
pub(super) enum Snapshot<'r> {
    Sqlite(sqlx::Transaction<'r, Sqlite>),
    Postgres(sqlx::Transaction<'r, Postgres>, Duration),
}

/// A client's, or the server's own; dropped when another may read.
type Turn = (Option<Reservation>, Option<OwnedSemaphorePermit>);

impl Readers {
    pub(super) async fn connect(
        pool: SqlitePoolOptions,
        options: SqliteConnectOptions,
    ) -> Result<Self, Error> {
        let options = options.pragma("cache_size", PAGE_CACHE_KIB);
        let pool = Pool::Sqlite(pool.connect_with(options).await?);
        Ok(Self::over(pool, LOOKUPS_MAX as usize, OWN_MAX as usize))
    }

    /// Over a pool whose other connections write, and whose server is waited for so long.
    pub(super) fn of_postgres(
        pool: PgPool,
        answer_time: Duration,
        lookups: usize,
        own: usize,
    ) -> Self {
        Self::over(Pool::Postgres(pool, answer_time), lookups, own)
    }

    fn over(pool: Pool, lookups: usize, own: usize) -> Self {
        let lookups = Turns::new("LOOKUPS_MAX", lookups);
        Self { pool, lookups, own: Arc::new(Semaphore::new(own)) }
    }

    /// A connection, when it is the asker's turn.
    pub(super) async fn get(&self) -> Result<Reader, Error> {
        let turn = self.turn().await?;
        let connection = match &self.pool {
            Pool::Sqlite(pool) => Pooled::Sqlite(pool.acquire().await?),
            Pool::Postgres(pool, time) => {
                Pooled::Postgres(pool.acquire().await.map_err(Error::of_postgres)?, *time)
            }
        };
        Ok(Reader { connection, begins: false, turn: Some(turn) })
    }

    async fn turn(&self) -> Result<Turn, Error> {
        if let Some(turn) = self.lookups.take().await? {
            return Ok((Some(turn), None));
        }
        let turn = timeout(OWN_WAIT_MAX, Arc::clone(&self.own).acquire_owned()).await;
        let turn = turn.map_err(|_| sqlx::Error::PoolTimedOut)?;
        Ok((None, Some(turn.map_err(|_| Error::Closed)?)))
    }

    /// Waits until all are back, and gives out none any more.
    pub(super) async fn close(&self) {
        match &self.pool {
            Pool::Sqlite(pool) => pool.close().await,
            Pool::Postgres(pool, _) => pool.close().await,
        }
    }
}

impl Reader {
    /// The connection, for what SQLite alone has.
    pub(super) fn sqlite(&mut self) -> Result<&mut SqliteConnection, Error> {
        match &mut self.connection {
            Pooled::Sqlite(connection) => Ok(connection),
            Pooled::Postgres(..) => Err(Error::OfSqlite),
        }
    }

    /// What is asked until it is dropped is of one moment.
    pub(super) async fn snapshot(&mut self) -> Result<Snapshot<'_>, Error> {
        const READ: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
        let Self { connection, begins, .. } = self;
        Ok(match connection {
            Pooled::Sqlite(connection) => Snapshot::Sqlite(connection.begin().await?),
            Pooled::Postgres(connection, time) => {
                *begins = true;
                let begun = timeout(*time, connection.begin_with(READ)).await;
                let begun = begun.unwrap_or_else(|_| Err(no_answer()));
                let begun = begun.map_err(Error::of_postgres)?;
                *begins = false;
                Snapshot::Postgres(begun, *time)
            }
        })
    }
}

impl Statements for Reader {
    type Error = Error;

    fn connection(&mut self) -> Connection<'_> {
        match &mut self.connection {
            Pooled::Sqlite(connection) => Connection::Sqlite(connection),
            Pooled::Postgres(connection, time) => Connection::Postgres(connection, *time),
        }
    }
}

impl Statements for Snapshot<'_> {
    type Error = Error;

    fn connection(&mut self) -> Connection<'_> {
        match self {
            Self::Sqlite(connection) => Connection::Sqlite(connection),
            Self::Postgres(connection, time) => Connection::Postgres(connection, *time),
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // Also where its client left in the middle of a statement, the turn lasts until that has
        // come to its end and the connection is free.
        let returned = match &mut self.connection {
            Pooled::Postgres(connection, _) if self.begins => return connection.close_on_drop(),
            Pooled::Sqlite(connection) => connection.return_to_pool().left_future(),
            Pooled::Postgres(connection, _) => returned(connection).right_future(),
        };
        let turn = self.turn.take();
        tokio::spawn(async move {
            returned.await;
            drop(turn);
        });
    }
}

/// Readers for as long as the database is open. The pool's task that ends old and idle ones counts
/// those that are idle; where the count is below nought for a moment it goes round for ever and
/// takes a thread of the server along (sqlx 0.9, `spawn_maintenance_tasks`). What they read is broken
/// off when `closing` is set.
pub(super) fn pool(closing: &Arc<AtomicBool>) -> SqlitePoolOptions {
    let closing = Arc::clone(closing);
    SqlitePoolOptions::new()
        .max_connections(CONNECTIONS_MAX)
        .idle_timeout(None)
        .max_lifetime(None)
        // A line for each request that waits, else.
        .acquire_slow_level(LevelFilter::Debug)
        .after_connect(move |reader, _| {
            let closing = Arc::clone(&closing);
            Box::pin(async move {
                let goes_on = move || !closing.load(Ordering::Relaxed);
                reader.lock_handle().await?.set_progress_handler(STEPS, goes_on);
                Ok(())
            })
        })
}

#[cfg(test)]
mod tests {
    use berth_shared::{claimant::Claimant, clock::Clock, digest::Algorithm, subject::Subject};
    use futures_util::future::BoxFuture;
    use tokio::task::{JoinSet, yield_now};

    use super::*;
    use crate::{
        faults::{
            self,
            operations::{BLOB, digest_of, permit, push},
        },
        metadata::{Asker, Database, upload::UploadId},
        registry::content::Content,
    };

    fn client(name: &str) -> Asker {
        Asker::Client(Arc::new(Claimant::Subject(Subject::User(name.parse().unwrap()))))
    }

    async fn open() -> (tempfile::TempDir, Database) {
        let directory = tempfile::tempdir().unwrap();
        let database = Database::open(&directory.path().join("registry.db")).await.unwrap();
        (directory, database)
    }

    #[tokio::test]
    async fn whoever_holds_and_waits_for_readers_keeps_nobody_else_from_one() {
        let (_directory, database) = open().await;
        let mut asked = JoinSet::new();
        let (held, mut holds) = tokio::sync::mpsc::unbounded_channel();
        for attacker in ["mallory", "trudy", "eve"] {
            for _ in 0..200 {
                let (database, held) = (database.clone(), held.clone());
                asked.spawn(client(attacker).scope(async move {
                    let reader = database.reader().await.unwrap();
                    held.send(()).unwrap();
                    std::future::pending::<()>().await;
                    drop(reader);
                }));
            }
        }
        for _ in 0..3 * LOOKUPS_MAX / 4 {
            holds.recv().await.unwrap();
        }
        for _ in 0..100 {
            drop(client("carol").scope(database.reader()).await.unwrap());
            // The server has its own.
            drop(database.reader().await.unwrap());
        }
        assert!(holds.try_recv().is_err(), "a client has more than its share");
    }

    #[tokio::test]
    async fn no_request_of_a_client_looks_up_without_its_turn() {
        let (app, missing) = (permit("app"), "0".repeat(32).parse::<UploadId>().unwrap());
        let directory = tempfile::tempdir().unwrap();
        let registry = faults::sound(directory.path(), &Clock::system()).await;
        let registry = &registry;
        let mut held = Vec::new();
        for _ in 0..LOOKUPS_MAX / 4 {
            held.push(client("mallory").scope(registry.database().reader()).await.unwrap());
        }
        let content = || Content::new(futures_util::stream::empty(), Some(0));
        let digest = &digest_of(&BLOB);
        let requests: [(_, BoxFuture<'_, bool>); 7] = [
            (
                "POST",
                Box::pin(push(registry, "app", &BLOB, Algorithm::Sha256).map(|it| it.is_ok())),
            ),
            ("GET", Box::pin(registry.uploads.progress(&app, &missing).map(|it| it.is_ok()))),
            (
                "PATCH",
                Box::pin(async {
                    registry.uploads.append(&app, &missing, None, &mut content()).await.is_ok()
                }),
            ),
            (
                "PUT",
                Box::pin(async {
                    registry
                        .uploads
                        .commit(&app, &missing, digest, None, &mut content())
                        .await
                        .is_ok()
                }),
            ),
            ("DELETE", Box::pin(registry.uploads.cancel(&app, &missing).map(|it| it.is_ok()))),
            ("grant", Box::pin(registry.uploads.grant(&missing).map(|it| it.is_ok()))),
            ("blob", Box::pin(registry.blobs.find(&app, digest).map(|it| it.is_ok()))),
        ];
        for (name, request) in requests {
            let mut request = Box::pin(client("mallory").scope(request));
            for _ in 0..10 {
                let others = client("carol").scope(registry.uploads.progress(&app, &missing));
                tokio::select! {
                    biased;
                    _ = &mut request => panic!("{name} took no turn"),
                    answer = others => assert!(answer.is_err()),
                }
            }
        }
    }

    #[tokio::test]
    async fn the_servers_own_work_keeps_no_client_waiting() {
        let (_directory, database) = open().await;
        let mut own = Vec::new();
        for _ in 0..OWN_MAX {
            own.push(database.reader().await.unwrap());
        }
        let waits = tokio::spawn({
            let database = database.clone();
            async move { drop(database.reader().await.unwrap()) }
        });
        for _ in 0..100 {
            drop(client("carol").scope(database.reader()).await.unwrap());
        }
        assert!(!waits.is_finished());
        own.clear();
        waits.await.unwrap();
    }

    #[tokio::test]
    async fn a_turn_lasts_until_the_statement_of_a_client_that_left_has_ended() {
        const LONG: &str = "WITH RECURSIVE c (x) AS (VALUES (1) UNION ALL SELECT x + 1 FROM c)
            SELECT COUNT(*) FROM c";
        let (_directory, database) = open().await;
        for _ in 0..LOOKUPS_MAX / 4 {
            let mut reader = client("mallory").scope(database.reader()).await.unwrap();
            let mut reading = Box::pin(async move { reader.run(LONG, ()).await });
            let begun = async {
                for _ in 0..10 {
                    yield_now().await;
                }
            };
            // Its client leaves.
            tokio::select! {
                ended = reading.as_mut() => panic!("{ended:?}"),
                () = begun => {}
            }
        }
        let next = tokio::spawn(client("mallory").scope({
            let database = database.clone();
            async move { database.reader().await.map(drop) }
        }));
        for _ in 0..20 {
            drop(client("carol").scope(database.reader()).await.unwrap());
        }
        assert!(!next.is_finished());
        database.close().await;
        assert!(next.await.unwrap().is_err());
    }
}
