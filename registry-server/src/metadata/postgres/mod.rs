//! What is PostgreSQL's own: how it is connected to, which servers are taken, and what they say. Writing
//! there is `postgres_writer`.

mod alone;
mod schema;
#[cfg(test)]
pub(crate) mod tests;

use std::{
    fmt, io,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use berth_shared::telemetry::chain;
use log::LevelFilter;
use sqlx::{
    ConnectOptions, Connection as _, PgConnection, PgPool,
    migrate::MigrateError,
    postgres::{PgConnectOptions, PgPoolOptions, PgSslMode},
};
use tokio::time::timeout;

use super::{Error, schema::Schema};
pub(super) use alone::IS_ALONE;
pub(crate) use alone::{Alone, Taken};

/// How long a connection is waited for.
const CONNECT_TIME: Duration = Duration::from_secs(3);

/// A connection that nobody asked anything for so long is asked whether it still answers.
const IDLE_MAX: Duration = Duration::from_secs(1);

/// What a server that runs a statement too long has to say so.
const REFUSAL_TIME: Duration = Duration::from_secs(2);

/// An older connection is made anew, so that the server's memory of it ends.
const AGE_MAX: Duration = Duration::from_secs(30 * 60);

/// Statements that are kept prepared on a connection: more than there are.
const STATEMENTS: usize = 500;

/// What a new connection is asked, and told: not with its first words, which poolers take for theirs. A
/// statement that nobody waits for any more ends.
const BEGIN: &str = "SELECT pg_is_in_recovery() FROM
     set_config('statement_timeout', $1, FALSE) a, set_config('lock_timeout', $2, FALSE) b,
     set_config('idle_in_transaction_session_timeout', $3, FALSE) c,
     set_config('client_connection_check_interval', '1s', FALSE) d";

/// What the server's clock says, in milliseconds since the beginning of 1970.
pub(super) const TIME: &str = "SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)";

/// How many transactions of registry-servers have been open for so many seconds.
pub(super) const OPEN_TRANSACTIONS: &str = "SELECT COUNT(*) FROM pg_stat_activity
     WHERE datname = current_database() AND application_name = 'berth registry-server'
     AND pid <> pg_backend_pid() AND state <> 'idle'
     AND xact_start < clock_timestamp() - CAST($1 AS BIGINT) * INTERVAL '1 second'";

/// SQLSTATEs of what another transaction stood in the way of.
const REPEATED: [&str; 5] = ["40001", "40P01", "23503", "23505", "55P03"];

/// Classes of SQLSTATEs, and some whole ones, of a server that cannot do just now what is asked:
/// connection, resources, operator, and a standby.
const AWAY: [&str; 5] = ["08", "53", "57", "25006", "25P03"];

/// SQLSTATEs of a pooler in transaction mode that does not know prepared statements.
const OF_A_POOLER: [&str; 2] = ["42P05", "26000"];

/// Where the database is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Host, port, user and database, as a URL without a password.
    pub url: String,
    /// The same for migrations, where the other one leads through a pooler.
    pub migrate_url: Option<String>,
    /// Where the password stands, if one is needed.
    pub password_file: Option<PathBuf>,
    /// The CA of the server's certificate; the system's unless given.
    pub ca: Option<PathBuf>,
    /// Connections at most.
    pub connections_max: u32,
    /// How long a statement may be at work.
    pub statement_time_max: Duration,
    /// The directory in which copies of the rows may lie for a while.
    pub copies: PathBuf,
    /// Whether the server has to have commits on disk before it answers.
    pub durable: bool,
}

impl Settings {
    /// How long an answer is waited for: the server gives statements up before.
    pub(super) fn answer_time(&self) -> Duration {
        self.statement_time_max + REFUSAL_TIME
    }

    /// Host and database, as they may be told: what stands before them may be a secret that does not
    /// belong there.
    #[must_use]
    pub fn place(&self) -> &str {
        let behind = self.url.rsplit_once('@').map_or(self.url.as_str(), |(_, behind)| behind);
        behind.split('?').next().unwrap_or_default()
    }

    /// What a connection needs. Without `sslmode` in the URL a server elsewhere must show a certificate
    /// of its name.
    fn options(&self, url: &str) -> Result<PgConnectOptions, Error> {
        let mut options = PgConnectOptions::from_str(url).map_err(Error::Query)?;
        if !url.contains("sslmode=") && !is_here(options.get_host()) {
            options = options.ssl_mode(PgSslMode::VerifyFull);
        }
        if let Some(ca) = &self.ca {
            options = options.ssl_root_cert(ca);
        }
        if let Some(file) = &self.password_file {
            options = options.password(&password(file)?);
        }
        Ok(options
            .application_name("berth registry-server")
            // Poolers refuse a connection that says this first, and no row has such a number.
            .extra_float_digits(None)
            .statement_cache_capacity(STATEMENTS)
            .log_slow_statements(LevelFilter::Debug, self.statement_time_max))
    }

    /// What a statement, a lock and a transaction that says nothing may take, in milliseconds.
    fn times(&self) -> [String; 3] {
        let statement = self.statement_time_max;
        [statement, statement / 2, statement * 3].map(|time| time.as_millis().to_string())
    }
}

/// The connections to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Connections {
    /// Those that somebody has.
    pub(crate) used: u64,
    /// Those that wait for somebody.
    pub(crate) idle: u64,
    /// How many there may be.
    pub(crate) max: u64,
}

/// Whether the host is this machine.
fn is_here(host: &str) -> bool {
    let host = host.trim_matches(['[', ']']);
    host.starts_with('/')
        || host == "localhost"
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn password(file: &Path) -> Result<String, Error> {
    let unreadable = |why: &dyn fmt::Display| {
        Error::Unfit(format!("database.password_file: {}: {why}", file.display()))
    };
    let bytes = berth_shared::files::read_at_most(file, berth_shared::files::SMALL_FILE_BYTES_MAX)
        .map_err(|error| unreadable(&error))?;
    let text = String::from_utf8(bytes).map_err(|error| unreadable(&error))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// Connects, refuses a server that registries cannot be kept in, and brings the tables to what this
/// program needs.
pub(super) async fn open(settings: &Settings) -> Result<PgPool, Error> {
    migrate(settings).await?;
    Ok(pool(settings).connect_lazy_with(settings.options(&settings.url)?))
}

/// The same for who reads beside a server, which has prepared the tables.
pub(super) async fn open_beside(settings: &Settings) -> Result<PgPool, Error> {
    let schema = look_at_schema(settings).await?;
    if !schema.missing.is_empty() {
        return Err(Error::Older);
    }
    Ok(pool(settings).connect_lazy_with(settings.options(&settings.url)?))
}

/// How the tables at the server stand to this program.
///
/// # Errors
/// When the server does not answer, registries cannot be kept in it, or this program is too old for the
/// tables.
pub async fn look_at_schema(settings: &Settings) -> Result<Schema, Error> {
    let mut connection = connect_alone(settings).await?;
    let look = async {
        refuse_unfit(&mut connection, settings.durable).await?;
        schema::look(&mut connection).await
    };
    let looked = timeout(settings.answer_time(), look).await;
    let schema = looked.unwrap_or_else(|_| Err(no_answer().into())).map_err(Error::of_postgres)?;
    let _ = connection.close().await;
    if schema.is_newer() { Err(Error::Newer) } else { Ok(schema) }
}

/// Brings the tables at the server to what this program needs, by the way that is for that. Gives how
/// they stood before.
///
/// # Errors
/// As [`look_at_schema`], and when the tables cannot be changed.
pub async fn migrate(settings: &Settings) -> Result<Schema, Error> {
    let before = look_at_schema(settings).await?;
    if before.missing.is_empty() {
        return Ok(before);
    }
    let mut connection = match &settings.migrate_url {
        None => connect_alone(settings).await?,
        Some(url) => connect_to_migrate(settings, url).await?,
    };
    schema::migrate(&mut connection).await.map_err(Error::of_postgres)?;
    let _ = connection.close().await;
    Ok(before)
}

/// By the way that is for that, which has to lead to the same tables.
async fn connect_to_migrate(settings: &Settings, url: &str) -> Result<PgConnection, Error> {
    const WHERE: &str = "SELECT current_database() || ' ' || current_schemas(FALSE)::TEXT || ' '
         || pg_postmaster_start_time()";
    let of = |error: &dyn fmt::Display| Error::Unfit(format!("database.migrate_url: {error}"));
    let mut here = connect_alone(settings).await?;
    let mut there = connect(&settings.options(url)?).await.map_err(|error| of(&chain(&error)))?;
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
pub(super) async fn connect_alone(settings: &Settings) -> Result<PgConnection, Error> {
    connect(&settings.options(&settings.url)?).await
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
        // As for those that read in SQLite: the pool's own task may go round for ever.
        .idle_timeout(None)
        .max_lifetime(None)
        // Asking each time would be a round trip more for each statement.
        .test_before_acquire(false)
        .before_acquire(|connection, it| {
            Box::pin(async move {
                let is_fit =
                    it.age < AGE_MAX && (it.idle_for < IDLE_MAX || connection.ping().await.is_ok());
                Ok(is_fit)
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

async fn refuse_unfit(connection: &mut PgConnection, durable: bool) -> Result<(), Error> {
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
    let unfit = |why: String| Err(Error::Unfit(why));
    if encoding != "UTF8" {
        return unfit(format!(
            "the database has the encoding {encoding}: make it anew with ENCODING 'UTF8'"
        ));
    }
    if is_standby {
        return unfit("the server is a standby: database.url has to lead to the primary".into());
    }
    if version.parse::<u32>().is_ok_and(|version| version < 150_000) {
        return unfit("the server is older than PostgreSQL 15".into());
    }
    if durable && lags {
        tracing::warn!(
            "the database has a standby that nothing waits for: a failover to it may lose pushes that were \
             acknowledged; synchronous_standby_names says which one commits wait for"
        );
    }
    if durable && (fsync != "on" || commit == "off") {
        return unfit(format!(
            "fsync is {fsync} and synchronous_commit is {commit}: a power cut would lose pushes that \
             were acknowledged; turn both on, or set durable = false"
        ));
    }
    Ok(())
}

/// What is said of a server that says nothing.
pub(super) fn no_answer() -> sqlx::Error {
    io::Error::new(io::ErrorKind::TimedOut, "no answer in time").into()
}

/// The SQLSTATE of what another transaction stood in the way of.
pub(super) fn is_repeated(error: &sqlx::Error) -> Option<&'static str> {
    let state = state_of(error)?;
    REPEATED.into_iter().find(|repeated| *repeated == state)
}

pub(super) fn state_of(error: &sqlx::Error) -> Option<String> {
    error.as_database_error()?.code().map(|code| code.into_owned())
}

impl Error {
    /// Whether it may work in a moment: the server is away, or another transaction stood in the way.
    pub(crate) fn passes(&self) -> bool {
        match self {
            Self::Away(_) => true,
            Self::Query(source) => is_repeated(source).is_some(),
            _ => false,
        }
    }

    /// What PostgreSQL says, told by what can be done about it.
    pub(super) fn of_postgres(error: impl Into<Self>) -> Self {
        match error.into() {
            Self::Query(source) => {
                let state = state_of(&source);
                let begins = |with: &[&str]| {
                    state
                        .as_deref()
                        .is_some_and(|state| with.iter().any(|it| state.starts_with(it)))
                };
                match &source {
                    _ if begins(&OF_A_POOLER) => Self::Unfit(
                        "a pooler stands before the database that knows no prepared statements: \
                         database.url has to lead to the server itself"
                            .to_owned(),
                    ),
                    _ if begins(&REPEATED) => Self::Query(source),
                    _ if begins(&AWAY) => Self::Away(source),
                    sqlx::Error::Io(_)
                    | sqlx::Error::Tls(_)
                    | sqlx::Error::Protocol(_)
                    | sqlx::Error::PoolTimedOut
                    | sqlx::Error::WorkerCrashed => Self::Away(source),
                    sqlx::Error::PoolClosed => Self::Closed,
                    _ => Self::Query(source),
                }
            }
            Self::Migrate(MigrateError::Execute(source)) => Self::of_postgres(source),
            error => error,
        }
    }
}
