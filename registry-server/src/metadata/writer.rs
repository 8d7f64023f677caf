//! The one writer: takes queued work, commits what has come together, and answers afterwards.
//!
//! SQLite allows one writer at a time, and with `synchronous=FULL` each commit waits for the disk.
//! Putting what is queued into one transaction makes the waiting common; a savepoint around each
//! piece of work keeps a failure to itself.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use sqlx::{Connection, SqliteConnection};
use tokio::sync::{mpsc, oneshot};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Cache, Error, cache::Key};

/// Work that may wait for the writer.
const QUEUE: usize = 256;

/// Work that is committed together.
const BATCH: usize = 64;

/// The sending end of the writer's queue.
#[derive(Clone)]
pub(super) struct Writer {
    queue: mpsc::Sender<Box<dyn Job>>,
    closing: CancellationToken,
    task: TaskTracker,
}

/// What work on the database gets: a connection inside a transaction, and a list of what the
/// commit makes stale.
pub(crate) struct Transaction<'c> {
    pub(super) connection: &'c mut SqliteConnection,
    stale: &'c mut Vec<Key>,
}

impl Transaction<'_> {
    /// Drops `key` from the cache when the transaction is committed.
    pub(super) fn invalidate(&mut self, key: Key) {
        self.stale.push(key);
    }
}

impl Writer {
    /// Starts the writer task on its connection; it ends when it is closed or the last handle is
    /// dropped.
    pub(super) fn start(connection: SqliteConnection, cache: Arc<Cache>) -> Self {
        let (sender, queue) = mpsc::channel(QUEUE);
        let (closing, task) = (CancellationToken::new(), TaskTracker::new());
        task.spawn(write_queued(connection, queue, cache, closing.clone()));
        task.close();
        Self { queue: sender, closing, task }
    }

    /// Whether nothing can be written any more.
    pub(super) fn has_ended(&self) -> bool {
        self.queue.is_closed()
    }

    /// Takes no more work, and returns when what was queued is done and the connection is closed.
    pub(super) async fn close(&self) {
        self.closing.cancel();
        self.task.wait().await;
    }

    pub(super) async fn run<T, E, W>(&self, work: W) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        W: for<'t> FnOnce(&'t mut Transaction<'_>) -> BoxFuture<'t, Result<T, E>> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job = Pending { work: Some(work), result: None, reply };
        self.queue.send(Box::new(job)).await.map_err(|_| Error::Closed)?;
        answer.await.map_err(|_| Error::Closed)?
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("free", &self.queue.capacity()).finish()
    }
}

async fn write_queued(
    mut connection: SqliteConnection,
    mut queue: mpsc::Receiver<Box<dyn Job>>,
    cache: Arc<Cache>,
    closing: CancellationToken,
) {
    let mut jobs = Vec::with_capacity(BATCH);
    while take(&mut queue, &mut jobs, &closing).await > 0 {
        let mut stale = Vec::new();
        let committed = commit_together(&mut connection, &mut jobs, &mut stale).await;
        // Before anybody hears of the commit, and whatever became of it.
        cache.invalidate(&stale);
        for job in jobs.drain(..) {
            let failure = committed.as_ref().err().map(duplicate);
            job.finish(failure);
        }
    }
    if let Err(error) = connection.close().await {
        tracing::warn!(%error, "closing the database");
    }
}

/// Waits for work; 0 when there will be none.
async fn take(
    queue: &mut mpsc::Receiver<Box<dyn Job>>,
    jobs: &mut Vec<Box<dyn Job>>,
    closing: &CancellationToken,
) -> usize {
    tokio::select! {
        taken = queue.recv_many(jobs, BATCH) => return taken,
        () = closing.cancelled() => queue.close(),
    }
    // What was queued before is still done.
    queue.recv_many(jobs, BATCH).await
}

async fn commit_together(
    connection: &mut SqliteConnection,
    jobs: &mut [Box<dyn Job>],
    stale: &mut Vec<Key>,
) -> Result<(), sqlx::Error> {
    begin(connection).await?;
    let written = run_each(connection, jobs, stale).await;
    let end = if written.is_ok() { "COMMIT" } else { "ROLLBACK" };
    let ended = sqlx::query(end).execute(&mut *connection).await;
    if written.is_ok() && ended.is_err() {
        // A commit that failed leaves the transaction open.
        let _ = sqlx::query("ROLLBACK").execute(&mut *connection).await;
    }
    written.and(ended.map(|_| ()))
}

/// Begins a transaction. One that stays open, since this failed after it had begun or since the
/// end of the one before failed, would stand in the way of every later one.
async fn begin(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    const BEGIN: &str = "BEGIN IMMEDIATE";
    if sqlx::query(BEGIN).execute(&mut *connection).await.is_ok() {
        return Ok(());
    }
    // Fails where nothing is open, which is as well.
    let _ = sqlx::query("ROLLBACK").execute(&mut *connection).await;
    sqlx::query(BEGIN).execute(&mut *connection).await.map(drop)
}

async fn run_each(
    connection: &mut SqliteConnection,
    jobs: &mut [Box<dyn Job>],
    stale: &mut Vec<Key>,
) -> Result<(), sqlx::Error> {
    for job in jobs {
        sqlx::query("SAVEPOINT work").execute(&mut *connection).await?;
        let done = job.run(&mut Transaction { connection: &mut *connection, stale }).await;
        if !done {
            sqlx::query("ROLLBACK TO work").execute(&mut *connection).await?;
        }
        sqlx::query("RELEASE work").execute(&mut *connection).await?;
    }
    Ok(())
}

/// One failure has to be told to everybody who waits, and `sqlx::Error` cannot be cloned.
fn duplicate(error: &sqlx::Error) -> Error {
    let text = berth_shared::telemetry::chain(error);
    Error::Query(sqlx::Error::Io(std::io::Error::other(text)))
}

/// A piece of work in the queue, its types forgotten.
#[async_trait]
trait Job: Send {
    /// Does the work; `false` when it is to be rolled back.
    async fn run(&mut self, transaction: &mut Transaction<'_>) -> bool;

    /// Answers whoever waits: with the result, or with the reason why nothing was committed.
    fn finish(self: Box<Self>, failure: Option<Error>);
}

struct Pending<T, E, W> {
    work: Option<W>,
    result: Option<Result<T, E>>,
    reply: oneshot::Sender<Result<T, E>>,
}

#[async_trait]
impl<T, E, W> Job for Pending<T, E, W>
where
    T: Send + 'static,
    E: From<Error> + Send + 'static,
    W: for<'t> FnOnce(&'t mut Transaction<'_>) -> BoxFuture<'t, Result<T, E>> + Send + 'static,
{
    async fn run(&mut self, transaction: &mut Transaction<'_>) -> bool {
        let Some(work) = self.work.take() else { return false };
        let result = work(transaction).await;
        let done = result.is_ok();
        self.result = Some(result);
        done
    }

    fn finish(self: Box<Self>, failure: Option<Error>) {
        let result = match (self.result, failure) {
            // Work that failed by itself says why, whatever became of the batch.
            (Some(Err(error)), _) => Err(error),
            (_, Some(failure)) => Err(failure.into()),
            (Some(result), None) => result,
            (None, None) => Err(Error::Closed.into()),
        };
        // Nobody waits any more when the client left; the work is committed all the same.
        let _ = self.reply.send(result);
    }
}
