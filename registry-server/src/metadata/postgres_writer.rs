//! Writing on PostgreSQL: each write is a transaction of its own on a connection of the pool, and is
//! repeated where others stood in its way. The server commits together what comes together.

use std::{fmt, ops::Range, sync::Arc, time::Duration};

use berth_shared::{
    database::{Connection, is_repeated, no_answer, returned},
    telemetry::chain,
};
use metrics::counter;
use sqlx::{Connection as _, PgConnection, PgPool};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};

use super::{
    Cache, Error, Transaction, Turns,
    postgres::{Connections, Settings},
    switch::Switch,
    transaction::Extent,
    writer::Work,
};

/// How often a write is tried that meets others.
const TRIES_MAX: u32 = 6;

/// How long it waits before it is tried again, at least and at most.
const WAIT_MILLIS: Range<u64> = 10..100;

/// The SQLSTATE, or the word, for why the transaction that met it is tried again, of which nothing was kept.
fn repeated(error: &Error) -> Option<&'static str> {
    match error {
        Error::Overtaken => Some("overtaken"),
        Error::Query(error) => is_repeated(error),
        _ => None,
    }
}

/// Writes; clones share the turns.
#[derive(Clone)]
pub(super) struct Writer {
    pool: PgPool,
    settings: Arc<Settings>,
    answer_time: Duration,
    turns: Turns,
    /// All who write, the server itself among them.
    places: Arc<Semaphore>,
    switch: Arc<Switch>,
    cache: Arc<Cache>,
}

impl Writer {
    /// With so many connections of the pool at once.
    pub(super) fn new(pool: PgPool, settings: &Settings, most: usize, cache: Arc<Cache>) -> Self {
        let (turns, places) = (Turns::new("WRITES_MAX", most), Arc::new(Semaphore::new(most)));
        let (answer_time, settings) = (settings.server.answer_time(), Arc::new(settings.clone()));
        let switch = Arc::default();
        Self { pool, settings, answer_time, turns, places, switch, cache }
    }

    /// Runs `work`, again where others stood in its way. What has begun comes to its end, also when
    /// whoever asked has left.
    pub(super) async fn write<G, T, W>(&self, given: G, work: W, extent: Extent) -> Result<T, Error>
    where
        G: Send + Sync + 'static,
        T: Send + 'static,
        W: Work<G, T>,
    {
        let turn = self.turns.take().await?;
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(|_| Error::Closed)?;
        let this = self.clone();
        let written = tokio::spawn(async move {
            let _held: (_, OwnedSemaphorePermit) = (turn, place);
            this.write_until_done(&given, &work, extent).await
        });
        written.await.map_err(|_| Error::Closed)?
    }

    async fn write_until_done<G, T, W: Work<G, T>>(
        &self,
        given: &G,
        work: &W,
        extent: Extent,
    ) -> Result<T, Error> {
        for _ in 1..TRIES_MAX {
            let done = self.write_once(given, work, extent).await;
            let Err(error) = &done else { return done };
            let Some(state) = repeated(error) else { return done };
            counter!("berth_database_repeats_total", "sqlstate" => state).increment(1);
            tracing::debug!(%error, "a write met another and is repeated");
            sleep(Duration::from_millis(fastrand::u64(WAIT_MILLIS))).await;
        }
        match self.write_once(given, work, extent).await {
            Err(error) if repeated(&error).is_some() => {
                tracing::warn!(
                    error = chain(&error),
                    "a write met others too often and is given up"
                );
                Err(Error::Busy)
            }
            done => done,
        }
    }

    async fn write_once<G, T, W: Work<G, T>>(
        &self,
        given: &G,
        work: &W,
        extent: Extent,
    ) -> Result<T, Error> {
        let mut connection = self.pool.acquire().await.map_err(Error::of_postgres)?;
        let done = match extent {
            Extent::One => self.work_on(&mut connection, given, work).await,
            Extent::Several => self.write_on(&mut connection, given, work).await,
        };
        match done {
            // Whether its transaction has ended, nobody knows.
            Err(Error::Away(_)) => connection.close_on_drop(),
            _ => returned(&mut connection).await,
        }
        done
    }

    async fn write_on<G, T, W: Work<G, T>>(
        &self,
        connection: &mut PgConnection,
        given: &G,
        work: &W,
    ) -> Result<T, Error> {
        self.switch.check()?;
        let mut begun = self.answer(connection.begin()).await?;
        let mut stale = Vec::new();
        let within = Connection::Postgres(&mut begun, self.answer_time);
        let done = work(&mut Transaction { connection: within, stale: &mut stale }, given).await;
        // What is not committed is rolled back when the connection is used again, or with it.
        let done = done?;
        self.switch.check()?;
        let committed = self.answer(begun.commit()).await;
        // Before anybody hears of the commit, and whatever became of it.
        self.cache.invalidate(&stale);
        committed.map(|()| done)
    }

    async fn work_on<G, T, W: Work<G, T>>(
        &self,
        connection: &mut PgConnection,
        given: &G,
        work: &W,
    ) -> Result<T, Error> {
        let mut stale = Vec::new();
        let within = Connection::Postgres(connection, self.answer_time);
        let done = work(&mut Transaction { connection: within, stale: &mut stale }, given).await;
        self.cache.invalidate(&stale);
        done
    }

    async fn answer<T>(&self, asked: impl Future<Output = sqlx::Result<T>>) -> Result<T, Error> {
        let answer = timeout(self.answer_time, asked).await;
        answer.unwrap_or_else(|_| Err(no_answer())).map_err(Error::of_postgres)
    }

    /// Whether nothing may be changed. Work in a transaction keeps to it until its commit begins.
    pub(super) fn switch(&self) -> &Arc<Switch> {
        &self.switch
    }

    /// What it is connected by.
    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Takes no more work, and waits for what is under way.
    pub(super) async fn close(&self) {
        self.pool.close().await;
    }

    pub(super) fn connections(&self) -> Connections {
        let (open, idle) = (self.pool.size(), self.pool.num_idle());
        let used = u64::from(open).saturating_sub(idle as u64);
        let max = self.pool.options().get_max_connections().into();
        Connections { used, idle: idle as u64, max }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.pool.is_closed()
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("connections", &self.pool.size()).finish()
    }
}
