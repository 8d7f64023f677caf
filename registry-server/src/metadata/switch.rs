//! Whether nothing may be changed, whichever of several servers is asked: it stands in the database.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use berth_shared::{
    clock::UnixSeconds,
    database::{Connection, Statements},
};
use parking_lot::Mutex;
use sqlx::PgConnection;

use super::{
    Database, Engine, Error,
    postgres::{OPEN_TRANSACTIONS, Settings, connect_alone},
};

/// Since when.
const READ_ONLY: &str = "SELECT read_only FROM state WHERE id = 1";

/// How long what was seen is believed.
pub(crate) const BELIEVED: Duration = Duration::from_secs(10);

/// What a server knows of it. Nothing but this says that it may write again.
#[derive(Debug, Default)]
pub(crate) struct Switch {
    is_set: AtomicBool,
    /// When it was last seen, where it is looked at.
    seen: Mutex<Option<Instant>>,
    /// Whether another server works on the registry that does not go with this one.
    is_given_up: AtomicBool,
}

impl Switch {
    /// Whether nothing may be changed.
    pub(crate) fn is_set(&self) -> bool {
        self.is_set.load(Ordering::Relaxed) || self.is_given_up.load(Ordering::Relaxed)
    }

    /// Whether it was not seen for so long that it may have been set. Asked of the time, and not of who looks:
    /// that one may have stood still with the process.
    pub(crate) fn is_unknown(&self) -> bool {
        self.seen.lock().is_some_and(|seen| seen.elapsed() >= BELIEVED)
    }

    /// Lets this server change nothing any more, whatever is said later.
    pub(crate) fn give_up(&self) {
        self.is_given_up.store(true, Ordering::Relaxed);
    }

    /// Whether something may be changed, as far as is known here.
    pub(super) fn check(&self) -> Result<(), Error> {
        match (self.is_set(), self.is_unknown()) {
            (true, _) => Err(Error::ReadOnly),
            (false, true) => Err(Error::SwitchUnknown),
            (false, false) => Ok(()),
        }
    }

    /// So it was, when it was asked for then.
    fn hear(&self, is_set: bool, asked: Instant) {
        if self.is_set.swap(is_set, Ordering::Relaxed) != is_set {
            tracing::info!(read_only = is_set, "switched for all servers");
        }
        *self.seen.lock() = Some(asked);
    }
}

/// Looks, on a connection of its own: what else the server asks keeps nobody from seeing.
#[derive(Debug)]
pub(crate) struct Eye {
    settings: Settings,
    connection: Option<PgConnection>,
    switch: Arc<Switch>,
}

impl Eye {
    /// Looks once. A connection that does not answer is made anew the next time.
    pub(crate) async fn look(&mut self) -> Result<(), Error> {
        let asked = Instant::now();
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => connect_alone(&self.settings).await?,
        };
        let mut on = Connection::Postgres(&mut connection, self.settings.server.answer_time());
        let since: Option<UnixSeconds> = on.one(READ_ONLY, ()).await?;
        self.switch.hear(since.is_some(), asked);
        self.connection = Some(connection);
        Ok(())
    }
}

impl Database {
    /// What looks at the switch, where it stands at a server.
    pub(crate) fn eye(&self) -> Option<Eye> {
        let Engine::Postgres(writer) = &self.engine else { return None };
        let (settings, switch) = (writer.settings().clone(), Arc::clone(writer.switch()));
        Some(Eye { settings, connection: None, switch })
    }

    /// What is known of it here, where it stands at a server.
    pub(crate) fn switch(&self) -> Option<&Switch> {
        match &self.engine {
            Engine::Sqlite { .. } => None,
            Engine::Postgres(writer) => Some(writer.switch()),
        }
    }

    /// Looks at it now. Since when nothing may be changed.
    pub(crate) async fn read_only_since(&self) -> Result<Option<UnixSeconds>, Error> {
        let asked = Instant::now();
        let since: Option<UnixSeconds> = self.reader().await?.one(READ_ONLY, ()).await?;
        if let Some(switch) = self.switch() {
            switch.hear(since.is_some(), asked);
        }
        Ok(since)
    }

    /// How many transactions of servers are still open that began so long ago. What they were to change they
    /// may yet.
    pub(crate) async fn open_transactions(&self, age: Duration) -> Result<u64, Error> {
        match self.engine {
            Engine::Sqlite { .. } => Ok(0),
            Engine::Postgres(_) => self.reader().await?.one(OPEN_TRANSACTIONS, age.as_secs()).await,
        }
    }

    /// Lets nothing be changed from now on, or lets it again, whichever server is asked.
    pub(crate) async fn set_read_only(&self, since: Option<UnixSeconds>) -> Result<(), Error> {
        let written = self.write_one(since, |tx, since| {
            Box::pin(async move {
                let statement = "UPDATE state SET read_only = CASE
                         WHEN CAST($1 AS BIGINT) IS NULL THEN NULL ELSE COALESCE(read_only, $1) END
                     WHERE id = 1";
                tx.run(statement, *since).await
            })
        });
        match written.await? {
            0 => Err(Error::Unfit("no registry is there yet: start a server first".to_owned())),
            _ => Ok(()),
        }
    }
}
