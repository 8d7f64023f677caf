//! What is PostgreSQL's own: how it is connected to, which servers are taken, and writing there. Each
//! write is a transaction of its own on a connection of the pool; the server commits together what comes
//! together.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use berth_shared::telemetry::chain;
use log::LevelFilter;
use sqlx::{
    ConnectOptions, Connection as _, PgConnection, PgPool, Postgres,
    migrate::{Migrate, MigrateError, Migrator},
    pool::PoolConnection,
    postgres::{PgConnectOptions, PgPoolOptions, PgSslMode},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};

use super::{Cache, Error, Transaction, Turns, connection::Connection, writer::Work};

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations/postgres");

/// How long a connection is waited for.
const CONNECT_TIME: Duration = Duration::from_secs(3);

/// A connection that nobody asked anything for so long is asked whether it still answers.
const IDLE_MAX: Duration = Duration::from_secs(1);

/// What a server that runs a statement too long has to say so.
const REFUSAL_TIME: Duration = Duration::from_secs(2);

/// How long a connection may take to be fit for others again; one that does not is closed.
const RETURN_TIME: Duration = Duration::from_secs(2);

/// An older connection is made anew, so that the server's memory of it ends.
const AGE_MAX: Duration = Duration::from_secs(30 * 60);

/// How often a write is tried that meets others.
const TRIES_MAX: u32 = 6;

/// How long it waits before it is tried again, at least and at most.
const WAIT_MILLIS: std::ops::Range<u64> = 10..100;

/// Statements that are kept prepared on a connection: more than there are.
const STATEMENTS: usize = 500;

/// An ALTER waits for a while behind what runs, since everything else waits behind it, and then takes as
/// long as it must.
const MIGRATION_SETTINGS: [&str; 2] = ["SET lock_timeout = '2s'", "SET statement_timeout = 0"];

/// How often a migration is tried that has waited so long.
const MIGRATION_TRIES: u32 = 10;

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
    /// Where the password stands, if one is needed.
    pub password_file: Option<PathBuf>,
    /// The CA of the server's certificate; the system's unless given.
    pub ca: Option<PathBuf>,
    /// Connections at most.
    pub connections_max: u32,
    /// How long a statement may be at work.
    pub statement_time_max: Duration,
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
    fn options(&self) -> Result<PgConnectOptions, Error> {
        let mut options = PgConnectOptions::from_str(&self.url).map_err(Error::Query)?;
        if !self.url.contains("sslmode=") && !is_here(options.get_host()) {
            options = options.ssl_mode(PgSslMode::VerifyFull);
        }
        if let Some(ca) = &self.ca {
            options = options.ssl_root_cert(ca);
        }
        if let Some(file) = &self.password_file {
            options = options.password(&password(file)?);
        }
        let millis = |time: Duration| format!("{}", time.as_millis());
        Ok(options
            .application_name("berth registry-server")
            .statement_cache_capacity(STATEMENTS)
            .options([
                ("statement_timeout", millis(self.statement_time_max)),
                ("lock_timeout", millis(self.statement_time_max / 2)),
                ("idle_in_transaction_session_timeout", millis(self.statement_time_max * 3)),
                // A statement that nobody waits for any more ends.
                ("client_connection_check_interval", "1s".to_owned()),
                ("timezone", "UTC".to_owned()),
            ])
            .log_slow_statements(LevelFilter::Debug, self.statement_time_max))
    }
}

/// Which registry a database is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin {
    /// Random, and another one for each database.
    pub(crate) identity: String,
    /// Whether no blob lies anywhere yet.
    pub(crate) is_empty: bool,
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

/// Connects, refuses a server that registries cannot be kept in, and brings the schema to what this
/// program needs.
pub(super) async fn open(settings: &Settings) -> Result<PgPool, Error> {
    let options = settings.options()?;
    let mut first = connect(&options).await?;
    refuse_unfit(&mut first, settings.durable).await?;
    migrate(&mut first).await?;
    let _ = first.close().await;
    Ok(pool(settings).connect_lazy_with(options))
}

/// The same for who reads beside a server, which has prepared the schema.
pub(super) async fn open_beside(settings: &Settings) -> Result<PgPool, Error> {
    let options = settings.options()?;
    let mut first = connect(&options).await?;
    let statement = "SELECT to_regclass('_sqlx_migrations') IS NOT NULL";
    let is_migrated: bool = sqlx::query_scalar(statement).fetch_one(&mut first).await?;
    if !is_migrated || pending(&mut first).await? {
        return Err(Error::Older);
    }
    let _ = first.close().await;
    Ok(pool(settings).connect_lazy_with(options))
}

async fn connect(options: &PgConnectOptions) -> Result<PgConnection, Error> {
    let connected = timeout(CONNECT_TIME, PgConnection::connect_with(options)).await;
    connected.unwrap_or_else(|_| Err(no_answer())).map_err(Error::of_postgres)
}

fn pool(settings: &Settings) -> PgPoolOptions {
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
        .after_connect(|connection, _| {
            Box::pin(async move {
                let is_standby = "SELECT pg_is_in_recovery()";
                if sqlx::query_scalar(is_standby).fetch_one(connection).await? {
                    return Err(sqlx::Error::Protocol("the server is a standby".to_owned()));
                }
                Ok(())
            })
        })
}

async fn refuse_unfit(connection: &mut PgConnection, durable: bool) -> Result<(), Error> {
    let statement = "SELECT current_setting('server_encoding'), current_setting('fsync'),
         current_setting('synchronous_commit'), pg_is_in_recovery(),
         current_setting('server_version_num')";
    let (encoding, fsync, commit, is_standby, version): (String, String, String, bool, String) =
        sqlx::query_as(statement).fetch_one(connection).await?;
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
    if durable && (fsync != "on" || commit == "off") {
        return unfit(format!(
            "fsync is {fsync} and synchronous_commit is {commit}: a power cut would lose pushes that \
             were acknowledged; turn both on, or set durable = false"
        ));
    }
    Ok(())
}

/// One server at a time, whoever else starts. Nothing is copied first.
async fn migrate(connection: &mut PgConnection) -> Result<(), Error> {
    for setting in MIGRATION_SETTINGS {
        sqlx::query(setting).execute(&mut *connection).await?;
    }
    let mut tries = 0;
    loop {
        tries += 1;
        match MIGRATIONS.run_direct(None, &mut *connection, false).await {
            Ok(()) => return Ok(()),
            Err(MigrateError::VersionMissing(_)) => return Err(Error::Newer),
            Err(error) if tries < MIGRATION_TRIES && waited_too_long(&error) => {
                tracing::info!("the schema is in use: it is migrated in a moment");
            }
            Err(error) => return Err(Error::Migrate(error)),
        }
    }
}

fn waited_too_long(error: &MigrateError) -> bool {
    match error {
        MigrateError::Execute(source) | MigrateError::ExecuteMigration(source, _) => {
            state_of(source).is_some_and(|state| state == "55P03")
        }
        _ => false,
    }
}

/// Whether there is a migration that this program knows and the database does not.
async fn pending(connection: &mut PgConnection) -> Result<bool, Error> {
    let applied =
        connection.list_applied_migrations("_sqlx_migrations").await.map_err(Error::Migrate)?;
    let newest = MIGRATIONS.iter().map(|it| it.version).max();
    let there = applied.iter().map(|it| it.version).max();
    if there > newest {
        return Err(Error::Newer);
    }
    Ok(there < newest)
}

/// What is said of a server that says nothing.
pub(super) fn no_answer() -> sqlx::Error {
    io::Error::new(io::ErrorKind::TimedOut, "no answer in time").into()
}

fn state_of(error: &sqlx::Error) -> Option<String> {
    error.as_database_error()?.code().map(|code| code.into_owned())
}

impl Error {
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
            error => error,
        }
    }
}

/// Whether the transaction that met it is tried again, of which nothing was kept.
fn is_repeated(error: &Error) -> bool {
    match error {
        Error::Overtaken => true,
        Error::Query(error) => {
            state_of(error).is_some_and(|state| REPEATED.contains(&state.as_str()))
        }
        _ => false,
    }
}

/// Gives the connection back, if it is fit for others in time; else it is closed.
pub(super) fn returned(
    connection: &mut PoolConnection<Postgres>,
) -> impl Future<Output = ()> + Send + 'static {
    let returned = connection.return_to_pool();
    async move {
        let _ = timeout(RETURN_TIME, returned).await;
    }
}

/// Writes; clones share the turns.
#[derive(Clone)]
pub(super) struct Writer {
    pool: PgPool,
    answer_time: Duration,
    turns: Turns,
    /// All who write, the server itself among them.
    places: Arc<Semaphore>,
    cache: Arc<Cache>,
}

impl Writer {
    /// With so many connections of the pool at once.
    pub(super) fn new(pool: PgPool, answer_time: Duration, most: usize, cache: Arc<Cache>) -> Self {
        let turns = Turns::new("WRITES_MAX", most);
        Self { pool, answer_time, turns, places: Arc::new(Semaphore::new(most)), cache }
    }

    /// Runs `work` in a transaction, again where others stood in its way. What has begun comes to its
    /// end, also when whoever asked has left.
    pub(super) async fn write<G, T, W>(&self, given: G, work: W) -> Result<T, Error>
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
            this.write_until_done(&given, &work).await
        });
        written.await.map_err(|_| Error::Closed)?
    }

    async fn write_until_done<G, T, W: Work<G, T>>(&self, given: &G, work: &W) -> Result<T, Error> {
        for _ in 1..TRIES_MAX {
            match self.write_once(given, work).await {
                Err(error) if is_repeated(&error) => {
                    tracing::debug!(%error, "a write met another and is repeated");
                    sleep(Duration::from_millis(fastrand::u64(WAIT_MILLIS))).await;
                }
                done => return done,
            }
        }
        match self.write_once(given, work).await {
            Err(error) if is_repeated(&error) => {
                tracing::warn!(
                    error = chain(&error),
                    "a write met others too often and is given up"
                );
                Err(Error::Busy)
            }
            done => done,
        }
    }

    async fn write_once<G, T, W: Work<G, T>>(&self, given: &G, work: &W) -> Result<T, Error> {
        let mut connection = self.pool.acquire().await.map_err(Error::of_postgres)?;
        let done = self.write_on(&mut connection, given, work).await;
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
        let mut begun = self.answer(connection.begin()).await?;
        let mut stale = Vec::new();
        let within = Connection::Postgres(&mut begun, self.answer_time);
        let done = work(&mut Transaction { connection: within, stale: &mut stale }, given).await;
        // What is not committed is rolled back when the connection is used again, or with it.
        let done = done?;
        let committed = self.answer(begun.commit()).await;
        // Before anybody hears of the commit, and whatever became of it.
        self.cache.invalidate(&stale);
        committed.map(|()| done)
    }

    async fn answer<T>(&self, asked: impl Future<Output = sqlx::Result<T>>) -> Result<T, Error> {
        let answer = timeout(self.answer_time, asked).await;
        answer.unwrap_or_else(|_| Err(no_answer())).map_err(Error::of_postgres)
    }

    /// Which registry the rows are of.
    pub(super) async fn origin(&self) -> Result<Origin, Error> {
        let mut connection = self.pool.acquire().await.map_err(Error::of_postgres)?;
        let make = "INSERT INTO state (id, identity)
             VALUES (1, REPLACE(CAST(gen_random_uuid() AS TEXT), '-', '')) ON CONFLICT DO NOTHING";
        self.answer(sqlx::query(make).execute(&mut *connection)).await?;
        let find = "SELECT identity, NOT EXISTS (SELECT 1 FROM blobs) FROM state";
        let found = sqlx::query_as(find).fetch_one(&mut *connection);
        let (identity, is_empty) = self.answer(found).await?;
        Ok(Origin { identity, is_empty })
    }

    /// Takes no more work, and waits for what is under way.
    pub(super) async fn close(&self) {
        self.pool.close().await;
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

#[cfg(test)]
pub(super) mod tests {
    use std::env;

    use sqlx::AssertSqlSafe;

    use super::*;
    use crate::metadata::{Database, statement::Statements};

    async fn execute(statement: String) {
        let mut connection = PgConnection::connect(&server()).await.unwrap();
        sqlx::query(AssertSqlSafe(statement)).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }

    /// The URL of a server and of a database there, where schemas and databases may be made.
    #[expect(clippy::disallowed_methods, reason = "a test has no other settings")]
    fn server() -> String {
        env::var("BERTH_TEST_POSTGRES")
            .expect("the URL of a PostgreSQL server, BERTH_TEST_POSTGRES")
    }

    fn with(url: &str, option: &str) -> String {
        format!("{url}{}{option}", if url.contains('?') { '&' } else { '?' })
    }

    /// Of a schema of the test's own.
    pub(in super::super) async fn settings() -> Settings {
        let schema = format!("t{:032x}", fastrand::u128(..));
        execute(format!("CREATE SCHEMA {schema}")).await;
        Settings {
            url: with(&server(), &format!("options[search_path]={schema}")),
            password_file: None,
            ca: None,
            connections_max: 16,
            statement_time_max: Duration::from_secs(20),
            durable: true,
        }
    }

    #[tokio::test]
    #[ignore = "needs PostgreSQL, which tests/interop/postgres.sh starts"]
    async fn a_server_that_would_lose_what_was_acknowledged_is_refused() {
        let mut settings = settings().await;
        settings.url = with(&settings.url, "options[synchronous_commit]=off");
        let refused = Database::connect(&settings).await;
        assert!(
            matches!(&refused, Err(Error::Unfit(why)) if why.contains("synchronous_commit is off"))
        );
        settings.durable = false;
        Database::connect(&settings).await.unwrap();
    }

    #[tokio::test]
    #[ignore = "needs PostgreSQL, which tests/interop/postgres.sh starts"]
    async fn a_database_of_another_encoding_is_refused() {
        let name = format!("t{:032x}", fastrand::u128(..));
        execute(format!("CREATE DATABASE {name} ENCODING 'SQL_ASCII' TEMPLATE template0")).await;
        let mut settings = settings().await;
        settings.url = with(&server(), &format!("dbname={name}"));
        let refused = Database::connect(&settings).await;
        assert!(matches!(&refused, Err(Error::Unfit(why)) if why.contains("UTF8")), "{refused:?}");
        execute(format!("DROP DATABASE {name}")).await;
    }

    #[tokio::test]
    #[ignore = "needs PostgreSQL, which tests/interop/postgres.sh starts"]
    async fn tables_of_a_newer_program_are_refused_and_of_none_only_by_who_reads() {
        let settings = settings().await;
        assert!(matches!(Database::connect_beside(&settings).await, Err(Error::Older)));
        let database = Database::connect(&settings).await.unwrap();
        Database::connect_beside(&settings).await.unwrap();
        let insert = database.write((), |tx, ()| {
            Box::pin(async move {
                let statement = "INSERT INTO _sqlx_migrations
                    (version, description, success, checksum, execution_time)
                    VALUES (1000000, 'from the future', TRUE, 'x', 0)";
                tx.run(statement, ()).await
            })
        });
        insert.await.unwrap();
        assert!(matches!(Database::connect(&settings).await, Err(Error::Newer)));
        assert!(matches!(Database::connect_beside(&settings).await, Err(Error::Newer)));
    }

    #[tokio::test]
    #[ignore = "needs PostgreSQL, which tests/interop/postgres.sh starts"]
    async fn connections_that_the_server_ended_are_told_as_away_or_made_anew() {
        const END: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname = current_database() AND application_name LIKE 'berth%'";
        let database = Database::connect(&settings().await).await.unwrap();
        for _ in 0..2 * 16 {
            database.check().await.unwrap();
        }
        execute(END.to_owned()).await;
        let mut met = 0;
        while let Err(error) = database.check().await {
            assert!(matches!(error, Error::Away(_)), "{error:?}");
            met += 1;
            assert!(met <= 16, "each connection fails once");
        }
    }

    #[test]
    fn only_a_server_elsewhere_has_to_show_a_certificate() {
        for (host, here) in [
            ("/run/postgresql", true),
            ("localhost", true),
            ("127.0.0.1", true),
            ("::1", true),
            ("[::1]", true),
            ("db.lan", false),
            ("10.0.0.1", false),
        ] {
            assert_eq!(is_here(host), here, "{host}");
        }
    }
}
