//! The one writer: takes queued work, commits what has come together, and answers afterwards.
//!
//! SQLite allows one writer at a time, and with `synchronous=FULL` each commit waits for the disk.
//! Putting what is queued into one transaction makes the waiting common; a savepoint around each
//! piece of work keeps a failure to itself.
//!
//! No work holds the writer for long: what waits longer than [`Watch::limit`] is given up, and what
//! is at work for a third of that is interrupted. SQLite then rolls back the whole transaction if
//! rows were being written, and whoever had a part in it is told to try again.

mod queue;
#[cfg(test)]
mod tests;
mod watch;

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use berth_shared::database::Connection;
use futures_util::future::BoxFuture;
use sqlx::{Connection as _, SqliteConnection};
use tokio::{
    sync::oneshot,
    time::{sleep, timeout},
};
use tokio_util::task::TaskTracker;

use queue::Queue;
use watch::Watch;

use super::{Asker, Cache, Database, Engine, Error, Transaction, key::Key, transaction::Extent};

/// Work that is committed together.
const BATCH: usize = 64;

/// How long work is gathered into one transaction: what came first has to wait for the commit.
const BATCH_TIME: Duration = Duration::from_millis(50);

/// After how many steps of SQLite's machine the watch is asked: a fraction of a millisecond.
const STEPS: i32 = 1000;

/// How long the work in hand may go on when the writer is to stop.
const STOP_TIME: Duration = Duration::from_secs(2);

/// The asking end of the writer.
#[derive(Clone)]
pub(super) struct Writer {
    queue: Arc<ClosedOnDrop>,
    watch: Arc<Watch>,
    task: TaskTracker,
}

impl Writer {
    /// Starts the writer task on its connection; it ends when it is closed or the last handle is
    /// dropped.
    pub(super) async fn start(
        connection: SqliteConnection,
        cache: Arc<Cache>,
    ) -> Result<Self, Error> {
        Self::start_checked(connection, cache, STEPS, || true).await
    }

    /// As `start`, and interrupts a statement also when `may_go_on` says so, which is asked every
    /// few `steps`.
    pub(super) async fn start_checked(
        mut connection: SqliteConnection,
        cache: Arc<Cache>,
        steps: i32,
        mut may_go_on: impl FnMut() -> bool + Send + 'static,
    ) -> Result<Self, Error> {
        let (queue, watch) = (Queue::new(), Arc::new(Watch::new()));
        let eye = Arc::clone(&watch);
        let go_on = move || may_go_on() && !eye.is_over();
        connection.lock_handle().await?.set_progress_handler(steps, go_on);
        let open = Open { queue: Arc::clone(&queue), watch: Arc::clone(&watch), connection, cache };
        let task = TaskTracker::new();
        task.spawn(open.write_queued());
        task.close();
        Ok(Self { queue: Arc::new(ClosedOnDrop(queue)), watch, task })
    }

    /// Whether nothing can be written any more.
    pub(super) fn has_ended(&self) -> bool {
        self.queue.0.is_closed()
    }

    /// How long a write may wait for its turn; what is at work has a third of that.
    pub(super) fn set_limit(&self, most: Duration) {
        self.watch.set_limit(most);
    }

    /// Takes no more work, drops what was not begun, and returns when the connection is closed: the
    /// work in hand is interrupted if it takes too long.
    pub(super) async fn close(&self) {
        self.queue.0.close();
        self.watch.stop_within(STOP_TIME);
        // Another process may hold the database; what is not in it then is in its journal.
        if timeout(STOP_TIME + Duration::from_secs(1), self.task.wait()).await.is_err() {
            tracing::warn!("the database could not be closed in time");
        }
    }
}

impl Database {
    /// Runs `work` on what is `given` to it in a transaction of the writer, and gives its result once
    /// that is committed. When `work` fails, nothing of it is kept. It may be run more than once.
    ///
    /// When the caller is dropped or has waited too long, work that is not begun leaves the queue and
    /// is never done, and what is begun goes on. Work of an [`Asker`] waits behind what the same one
    /// has asked for.
    ///
    /// # Errors
    /// What `work` says, when the commit fails, and [`Error::Busy`] when it takes too long.
    pub(super) async fn write<G, T, W>(&self, given: G, work: W) -> Result<T, Error>
    where
        G: Send + Sync + 'static,
        T: Send + 'static,
        W: Work<G, T>,
    {
        let Writer { queue, watch, .. } = match &self.engine {
            Engine::Sqlite { writer, .. } => writer,
            Engine::Postgres(writer) => return writer.write(given, work, Extent::Several).await,
        };
        let (reply, mut answer) = oneshot::channel();
        let job = Pending { given, work, result: None, reply };
        let place = queue.0.put(Asker::current(), Box::new(job))?;
        tokio::select! {
            answer = &mut answer => return answer.map_err(|_| Error::Closed)?,
            () = sleep(watch.limit()) => {}
        }
        if place.give_up() {
            return Err(Error::Busy);
        }
        answer.await.map_err(|_| Error::Closed)?
    }

    /// The same for work that makes one statement, which PostgreSQL commits by itself.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub(super) async fn write_one<G, T, W>(&self, given: G, work: W) -> Result<T, Error>
    where
        G: Send + Sync + 'static,
        T: Send + 'static,
        W: Work<G, T>,
    {
        match &self.engine {
            Engine::Sqlite { .. } => self.write(given, work).await,
            Engine::Postgres(writer) => writer.write(given, work, Extent::One).await,
        }
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("queued", &self.queue.0.len()).finish()
    }
}

/// The working end of the writer.
struct Open {
    queue: Arc<Queue<Box<dyn Job>>>,
    watch: Arc<Watch>,
    connection: SqliteConnection,
    cache: Arc<Cache>,
}

/// Closes the queue when nobody can ask any more, and when nobody can answer.
struct ClosedOnDrop(Arc<Queue<Box<dyn Job>>>);

impl Drop for ClosedOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Open {
    async fn write_queued(mut self) {
        let _closed = ClosedOnDrop(Arc::clone(&self.queue));
        while self.queue.is_filled().await {
            self.write_together().await;
        }
        if let Err(error) = self.connection.close().await {
            tracing::warn!(%error, "closing the database");
        }
    }

    /// Does what is queued in one transaction, each asker in turn. While another process holds the
    /// database, work stays in the queue, where it may be given up.
    async fn write_together(&mut self) {
        if let Err(error) = self.begin().await {
            if !is_held(&error)
                && let Some(job) = self.queue.take()
            {
                job.finish(Some(duplicate(&error)));
            }
            return;
        }
        let (began, mut jobs, mut stale) = (Instant::now(), Vec::new(), Vec::new());
        let mut written = Ok(());
        while written.is_ok()
            && jobs.len() < BATCH
            && began.elapsed() < BATCH_TIME
            && let Some(mut job) = self.queue.take()
        {
            written = self.work_on(job.as_mut(), &mut stale).await;
            jobs.push(job);
        }
        let committed = match written {
            Ok(()) => self.commit().await,
            Err(lost) => {
                // Fails where SQLite has done so by itself, which is as well.
                let _ = self.execute("ROLLBACK").await;
                Err(lost)
            }
        };
        // Before anybody hears of the commit, and whatever became of it.
        self.cache.invalidate(&stale);
        for job in jobs {
            let failure = committed.as_ref().err().map(|error| match error {
                Error::Query(error) => duplicate(error),
                _ => Error::Busy,
            });
            job.finish(failure);
        }
    }

    /// Does one piece of work. Fails when the transaction is lost with it.
    async fn work_on(&mut self, job: &mut dyn Job, stale: &mut Vec<Key>) -> Result<(), Error> {
        self.execute("SAVEPOINT work").await?;
        self.watch.begin();
        let mut transaction =
            Transaction { connection: Connection::Sqlite(&mut self.connection), stale };
        let done = tokio::select! {
            done = job.run(&mut transaction) => done,
            () = self.watch.over() => false,
        };
        let is_over = !done && self.watch.is_over();
        if is_over {
            tracing::warn!(limit = ?self.watch.limit(), "a write took too long and was interrupted");
            job.fail(Error::Busy);
            // Its statement may be at work still; behind it, the connection is free.
            let _ = self.execute("SELECT 1").await;
        }
        self.watch.end();
        let kept = async {
            if !done {
                self.execute("ROLLBACK TO work").await?;
            }
            self.execute("RELEASE work").await
        };
        kept.await.map_err(|error| if is_over { Error::Busy } else { Error::Query(error) })
    }

    /// Begins a transaction. One that stays open, since this failed after it had begun or since the
    /// end of the one before failed, would stand in the way of every later one.
    async fn begin(&mut self) -> Result<(), sqlx::Error> {
        const BEGIN: &str = "BEGIN IMMEDIATE";
        if self.execute(BEGIN).await.is_ok() {
            return Ok(());
        }
        // Fails where nothing is open, which is as well.
        let _ = self.execute("ROLLBACK").await;
        self.execute(BEGIN).await
    }

    async fn commit(&mut self) -> Result<(), Error> {
        let committed = self.execute("COMMIT").await;
        if committed.is_err() {
            // A commit that failed leaves the transaction open.
            let _ = self.execute("ROLLBACK").await;
        }
        Ok(committed?)
    }

    async fn execute(&mut self, statement: &'static str) -> Result<(), sqlx::Error> {
        sqlx::query(statement).execute(&mut self.connection).await.map(drop)
    }
}

/// Whether another process holds the database (`SQLITE_BUSY`, whatever its extended code).
fn is_held(error: &sqlx::Error) -> bool {
    const BUSY: i32 = 5;
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.and_then(|code| code.parse::<i32>().ok()).is_some_and(|code| code & 0xff == BUSY)
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

    /// Lets it have failed, whatever it says itself.
    fn fail(&mut self, error: Error);

    /// Answers whoever waits: with the result, or with the reason why nothing was committed.
    fn finish(self: Box<Self>, failure: Option<Error>);
}

/// One transaction's worth of statements, which can be repeated: it keeps nothing of what it is given.
pub(super) trait Work<G, T>:
    for<'t> Fn(&'t mut Transaction<'_>, &'t G) -> BoxFuture<'t, Result<T, Error>>
    + Send
    + Sync
    + 'static
{
}

impl<G, T, W> Work<G, T> for W where
    W: for<'t> Fn(&'t mut Transaction<'_>, &'t G) -> BoxFuture<'t, Result<T, Error>>
        + Send
        + Sync
        + 'static
{
}

struct Pending<G, T, W> {
    given: G,
    work: W,
    result: Option<Result<T, Error>>,
    reply: oneshot::Sender<Result<T, Error>>,
}

#[async_trait]
impl<G, T, W> Job for Pending<G, T, W>
where
    G: Send + Sync + 'static,
    T: Send + 'static,
    W: Work<G, T>,
{
    async fn run(&mut self, transaction: &mut Transaction<'_>) -> bool {
        let result = (self.work)(transaction, &self.given).await;
        let done = result.is_ok();
        self.result = Some(result);
        done
    }

    fn fail(&mut self, error: Error) {
        self.result = Some(Err(error));
    }

    fn finish(self: Box<Self>, failure: Option<Error>) {
        let result = match (self.result, failure) {
            // Work that failed by itself says why, whatever became of the batch.
            (Some(Err(error)), _) => Err(error),
            (_, Some(failure)) => Err(failure),
            (Some(result), None) => result,
            (None, None) => Err(Error::Closed),
        };
        // Nobody waits any more when the client left; the work is committed all the same.
        let _ = self.reply.send(result);
    }
}
