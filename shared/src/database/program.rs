//! A program that keeps its tables at a server of PostgreSQL: how it connects, and which servers it takes.

use std::{fmt, time::Duration};

use log::LevelFilter;
use sqlx::{
    Connection as _, PgConnection, PgPool, Postgres,
    pool::PoolConnection,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::time::timeout;

use super::{Error, Migrations, Schema, Settings, state::no_answer};
use crate::telemetry::chain;

/// How long a connection is waited for.
const CONNECT_TIME: Duration = Duration::from_secs(3);

/// A connection that nobody asked anything for so long is asked whether it still answers.
const IDLE_MAX: Duration = Duration::from_secs(1);

/// How long a connection may take to be fit for others again; one that does not is closed.
const RETURN_TIME: Duration = Duration::from_secs(2);

/// What the server's clock says, in milliseconds since the beginning of 1970.
pub const TIME: &str = "SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)";

/// How long that may take.
const PING_TIME: Duration = Duration::from_millis(500);

/// An older connection is made anew, so that the server's memory of it ends.
const AGE_MAX: Duration = Duration::from_secs(30 * 60);

/// What a new connection is asked, and told: not with its first words, which poolers take for theirs. A
/// statement that nobody waits for any more ends.
const BEGIN: &str = "SELECT pg_is_in_recovery() FROM
     set_config('statement_timeout', $1, FALSE) a, set_config('lock_timeout', $2, FALSE) b,
     set_config('idle_in_transaction_session_timeout', $3, FALSE) c,
     set_config('client_connection_check_interval', '1s', FALSE) d";

/// What differs from program to program.
#[derive(Debug)]
pub struct Program {
    /// As which the server's operator sees it.
    pub name: &'static str,
    /// What makes its tables.
    pub migrations: Migrations,
    /// What a server would lose that forgets commits.
    pub lost: &'static str,
}

impl Program {
    /// Connects, refuses a server that the tables cannot be kept in, and brings them to what this
    /// program needs.
    ///
    /// # Errors
    /// As [`migrate`](Self::migrate).
    pub async fn open(&self, settings: &Settings) -> Result<PgPool, Error> {
        self.migrate(settings).await?;
        Ok(pool(settings).connect_lazy_with(settings.options(&settings.url, self.name)?))
    }

    /// The same for who reads beside a server, which has prepared the tables.
    ///
    /// # Errors
    /// As [`look_at_schema`](Self::look_at_schema), and when the tables are not prepared.
    pub async fn open_beside(&self, settings: &Settings) -> Result<PgPool, Error> {
        let schema = self.look_at_schema(settings).await?;
        if !schema.missing.is_empty() {
            return Err(Error::Older);
        }
        Ok(pool(settings).connect_lazy_with(settings.options(&settings.url, self.name)?))
    }

    /// How the tables at the server stand to this program.
    ///
    /// # Errors
    /// When the server does not answer, the tables cannot be kept in it, or this program is too old for
    /// them.
    pub async fn look_at_schema(&self, settings: &Settings) -> Result<Schema, Error> {
        let mut connection = self.connect_alone(settings).await?;
        let look = async {
            self.refuse_unfit(&mut connection, settings.durable).await?;
            self.migrations.look(&mut connection).await
        };
        let looked = timeout(settings.answer_time(), look).await;
        let schema =
            looked.unwrap_or_else(|_| Err(no_answer().into())).map_err(Error::of_postgres)?;
        let _ = connection.close().await;
        if schema.is_newer() { Err(Error::Newer) } else { Ok(schema) }
    }

    /// Brings the tables at the server to what this program needs, by the way that is for that. Gives how
    /// they stood before.
    ///
    /// # Errors
    /// As [`look_at_schema`](Self::look_at_schema), and when the tables cannot be changed.
    pub async fn migrate(&self, settings: &Settings) -> Result<Schema, Error> {
        let before = self.look_at_schema(settings).await?;
        if before.missing.is_empty() {
            return Ok(before);
        }
        let mut connection = match &settings.migrate_url {
            None => self.connect_alone(settings).await?,
            Some(url) => self.connect_to_migrate(settings, url).await?,
        };
        self.migrations.run(&mut connection).await.map_err(Error::of_postgres)?;
        let _ = connection.close().await;
        Ok(before)
    }

    /// By the way that is for that, which has to lead to the same tables.
    async fn connect_to_migrate(
        &self,
        settings: &Settings,
        url: &str,
    ) -> Result<PgConnection, Error> {
        const WHERE: &str =
            "SELECT current_database() || ' ' || current_schemas(FALSE)::TEXT || ' '
             || pg_postmaster_start_time()";
        let of = |error: &dyn fmt::Display| Error::Unfit(format!("database.migrate_url: {error}"));
        let mut here = self.connect_alone(settings).await?;
        let there = connect(&settings.options(url, self.name)?).await;
        let mut there = there.map_err(|error| of(&chain(&error)))?;
        let leads = async |connection: &mut PgConnection| -> Result<String, Error> {
            let asked = sqlx::query_scalar(WHERE).fetch_one(connection);
            let answer = timeout(settings.answer_time(), asked).await;
            answer.unwrap_or_else(|_| Err(no_answer())).map_err(Error::of_postgres)
        };
        let same = leads(&mut here).await? == leads(&mut there).await?;
        let _ = here.close().await;
        if same { Ok(there) } else { Err(of(&"it leads to other tables than database.url")) }
    }

    /// A connection of its own, for what takes long: none of those that requests share.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn connect_alone(&self, settings: &Settings) -> Result<PgConnection, Error> {
        connect(&settings.options(&settings.url, self.name)?).await
    }

    async fn refuse_unfit(
        &self,
        connection: &mut PgConnection,
        durable: bool,
    ) -> Result<(), Error> {
        let statement = "SELECT current_setting('server_encoding'), current_setting('fsync'),
             current_setting('synchronous_commit'), pg_is_in_recovery(),
             current_setting('server_version_num'),
             current_setting('synchronous_standby_names') = '' AND EXISTS (SELECT FROM pg_stat_replication)";
        let (encoding, fsync, commit, is_standby, version, lags): (
            String,
            String,
            String,
            bool,
            String,
            bool,
        ) = sqlx::query_as(statement).fetch_one(connection).await?;
        let (unfit, lost) = (|why: String| Err(Error::Unfit(why)), self.lost);
        if encoding != "UTF8" {
            return unfit(format!(
                "the database has the encoding {encoding}: make it anew with ENCODING 'UTF8'"
            ));
        }
        if is_standby {
            return unfit(
                "the server is a standby: database.url has to lead to the primary".into(),
            );
        }
        if version.parse::<u32>().is_ok_and(|version| version < 150_000) {
            return unfit("the server is older than PostgreSQL 15".into());
        }
        if durable && lags {
            tracing::warn!(
                "the database has a standby that nothing waits for: a failover to it may lose {lost}; \
                 synchronous_standby_names says which one commits wait for"
            );
        }
        if durable && (fsync != "on" || commit == "off") {
            return unfit(format!(
                "fsync is {fsync} and synchronous_commit is {commit}: a power cut would lose {lost}; \
                 turn both on, or set durable = false"
            ));
        }
        Ok(())
    }
}

/// Gives the connection back to the pool, if it is fit for others in time; else it is closed.
pub fn returned(
    connection: &mut PoolConnection<Postgres>,
) -> impl Future<Output = ()> + Send + 'static {
    let returned = connection.return_to_pool();
    async move {
        let _ = timeout(RETURN_TIME, returned).await;
    }
}

async fn connect(options: &PgConnectOptions) -> Result<PgConnection, Error> {
    let connected = timeout(CONNECT_TIME, PgConnection::connect_with(options)).await;
    connected.unwrap_or_else(|_| Err(no_answer())).map_err(Error::of_postgres)
}

fn pool(settings: &Settings) -> PgPoolOptions {
    let times = settings.times();
    PgPoolOptions::new()
        .max_connections(settings.connections_max)
        .acquire_timeout(CONNECT_TIME)
        .acquire_slow_level(LevelFilter::Debug)
        // The pool's own task, which ends what is old and idle, may go round for ever: where the count of
        // those that are idle is below nought for a moment (sqlx 0.9, `spawn_maintenance_tasks`).
        .idle_timeout(None)
        .max_lifetime(None)
        // Asking each time would be a round trip more for each statement.
        .test_before_acquire(false)
        .before_acquire(|connection, it| {
            Box::pin(async move {
                if it.age >= AGE_MAX {
                    return Ok(false);
                }
                if it.idle_for < IDLE_MAX {
                    return Ok(true);
                }
                // One that died without a word must not take the time that a new one needs.
                Ok(matches!(timeout(PING_TIME, connection.ping()).await, Ok(Ok(()))))
            })
        })
        .after_connect(move |connection, _| {
            let [statement, lock, transaction] = times.clone();
            Box::pin(async move {
                let begin = sqlx::query_scalar(BEGIN).bind(statement).bind(lock).bind(transaction);
                if begin.fetch_one(connection).await? {
                    return Err(sqlx::Error::Protocol("the server is a standby".to_owned()));
                }
                Ok(())
            })
        })
}
