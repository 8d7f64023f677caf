//! What is PostgreSQL's own: what this program is to a server of it, its connections, and how acts follow
//! each other there.
//!
//! Several servers, and `authctl` beside them, work on the same tables. What an act reads must still hold
//! when it writes: each begins by holding the row of the sequence, which is what `BEGIN IMMEDIATE` is for a
//! file. So a number of the sequence that can be seen has every smaller one seen.

#[cfg(test)]
mod tests;

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use berth_shared::database::{
    self, Connection, Migrations, Program, Settings, Statements, TIME, is_repeated, no_answer,
    returned,
};
use sqlx::{Connection as _, PgPool, Postgres, migrate::Migrator, pool::PoolConnection};
use tokio::time::{Instant, timeout};

use super::{Error, policy::Policy, sealed_key, user_hashes::UserHashes};

/// What an act holds, so that others wait for it.
pub(super) const HOLD_SEQUENCE: &str = "SELECT value FROM sequence WHERE id = 1 FOR UPDATE";

/// What rests on the acts before it, and lets others like it be.
pub(super) const SHARE_SEQUENCE: &str = "SELECT value FROM sequence WHERE id = 1 FOR SHARE";

/// How long a look may take.
const LOOK_TIME: Duration = Duration::from_secs(3);

static MIGRATIONS: LazyLock<Migrator> = LazyLock::new(|| {
    let mut migrations = sqlx::migrate!("migrations/postgres");
    // Those of a newer program: `compatible_from` says whether they matter.
    migrations.set_ignore_missing(true);
    migrations
});

static PROGRAM: Program = Program {
    name: "berth auth-server",
    migrations: Migrations { known: &MIGRATIONS, compatible_since: 10 },
    lost: "revocations and other acts of administration",
};

/// A server of PostgreSQL with this program's tables.
#[derive(Debug)]
pub(super) struct Server {
    pool: PgPool,
    answer_time: Duration,
}

/// A connection of it, for as long as it is held.
pub(super) struct Held {
    /// There until it is dropped.
    connection: Option<PoolConnection<Postgres>>,
    answer_time: Duration,
}

impl Server {
    /// Connects, and brings the tables to what this program needs.
    pub(super) async fn connect(settings: &Settings) -> Result<Self, Error> {
        let pool = PROGRAM.open(settings).await?;
        Ok(Self { pool, answer_time: settings.answer_time() })
    }

    /// A connection for a while.
    pub(super) async fn hold(&self) -> Result<Held, Error> {
        let connection = self.pool.acquire().await.map_err(database::Error::of_postgres)?;
        Ok(Held { connection: Some(connection), answer_time: self.answer_time })
    }

    /// What its clock says, as a time since the beginning of 1970, half of the way back added; `None` where that
    /// was long.
    pub(super) async fn time(&self) -> Result<Option<Duration>, Error> {
        /// What was said so long ago is no time.
        const LATE: Duration = Duration::from_secs(1);
        let mut held = self.hold().await?;
        let asked = Instant::now();
        let millis: u64 = held.connection().one(TIME, ()).await?;
        let way = asked.elapsed();
        Ok((way < LATE).then(|| Duration::from_millis(millis) + way / 2))
    }

    /// Ends all connections.
    pub(super) async fn close(&self) {
        self.pool.close().await;
    }
}

impl Held {
    /// Begins a transaction, with which the connection is closed unless it is committed or rolled back.
    pub(super) async fn begin(
        &mut self,
        statement: Option<&'static str>,
    ) -> Result<sqlx::Transaction<'_, Postgres>, Error> {
        let answer_time = self.answer_time;
        let connection = self.connection.as_mut().ok_or(database::Error::Closed)?;
        let begun = async {
            match statement {
                None => connection.begin().await,
                Some(statement) => connection.begin_with(statement).await,
            }
        };
        in_time(answer_time, begun).await
    }

    /// How long an answer is waited for.
    pub(super) fn answer_time(&self) -> Duration {
        self.answer_time
    }
}

/// Waits for an answer no longer than the server may take.
pub(super) async fn in_time<T>(
    most: Duration,
    asked: impl Future<Output = sqlx::Result<T>>,
) -> Result<T, Error> {
    let answer = timeout(most, asked).await.unwrap_or_else(|_| Err(no_answer()));
    Ok(answer.map_err(database::Error::of_postgres)?)
}

/// What looks whether the policy is another one, and reads it.
#[derive(Debug)]
pub(super) struct Eye {
    server: Arc<Server>,
    /// Of which database the policy is.
    identity: String,
}

impl Eye {
    pub(super) async fn open(server: Arc<Server>) -> Result<Self, Error> {
        let identity = "SELECT identity FROM state WHERE id = 1";
        let identity = server.hold().await?.one(identity, ()).await?;
        Ok(Self { server, identity })
    }

    /// Which policy it is now.
    pub(super) async fn version(&self) -> Result<(i64, i64), Error> {
        let look =
            "SELECT s.identity, p.value, k.value FROM state s, policy_version p, keys_version k";
        let asked = async { self.server.hold().await?.one(look, ()).await.map_err(Error::from) };
        // Others wait for the look: it is one short statement.
        let (identity, policy, keys): (String, i64, i64) = timeout(LOOK_TIME, asked)
            .await
            .unwrap_or_else(|_| Err(database::Error::Away(no_answer()).into()))?;
        if identity != self.identity {
            return Err(Error::Exchanged);
        }
        Ok((policy, keys))
    }

    /// The policy, all of it as it was at one moment.
    pub(super) async fn read(&self) -> Result<Policy, Error> {
        const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
        let mut held = self.server.hold().await?;
        let answer_time = held.answer_time;
        let mut begun = held.begin(Some(BEGIN)).await?;
        let mut connection = Connection::Postgres(&mut begun, answer_time);
        let mut policy = Policy::within(&mut connection).await?;
        let users: Vec<(String, String)> =
            connection.all("SELECT name, hash FROM users", ()).await?;
        policy.users = Some(UserHashes::of_rows(users));
        policy.signing_keys = sealed_key::read(&mut connection).await?;
        policy.revocations.identity.clone_from(&self.identity);
        in_time(answer_time, begun.commit()).await?;
        Ok(policy)
    }
}

impl Statements for Held {
    type Error = database::Error;

    fn connection(&mut self) -> Connection<'_> {
        match self.connection.as_mut() {
            Some(connection) => Connection::Postgres(connection, self.answer_time),
            None => unreachable!("it is there until it is dropped"),
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(mut connection) = self.connection.take() {
            tokio::spawn(returned(&mut connection));
        }
    }
}

/// Whether another transaction stood in the way, so that it may work in a moment: nothing was kept.
pub(super) fn stood_in_the_way(error: &Error) -> bool {
    matches!(error, Error::Statement(database::Error::Query(source)) if is_repeated(source).is_some())
}
