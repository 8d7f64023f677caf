//! Servers that are refused, and one that goes away.
//!
//! `tests/interop/postgres.sh` starts the server, and runs them.

use std::{env, time::Duration};

use berth_shared::{
    clock::{Clock, UnixSeconds},
    database::Statements,
    telemetry::chain,
};
use sqlx::{AssertSqlSafe, Connection as _};

use super::*;
use crate::{
    metadata::{Database, lease::Kind, repository},
    registry::lease::Sign,
};

async fn execute(statement: String) {
    let mut connection = PgConnection::connect(&server()).await.unwrap();
    sqlx::query(AssertSqlSafe(statement)).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

/// The URL of a server and of a database there, where schemas and databases may be made.
#[expect(clippy::disallowed_methods, reason = "a test has no other settings")]
fn server() -> String {
    env::var("BERTH_TEST_POSTGRES").expect("the URL of a PostgreSQL server, BERTH_TEST_POSTGRES")
}

fn with(url: &str, option: &str) -> String {
    format!("{url}{}{option}", if url.contains('?') { '&' } else { '?' })
}

/// Of a schema of the test's own.
pub(crate) async fn settings() -> Settings {
    let schema = format!("t{:032x}", fastrand::u128(..));
    execute(format!("CREATE SCHEMA {schema}")).await;
    at(with(&server(), &format!("options[search_path]={schema}")))
}

fn at(url: String) -> Settings {
    over(database::Settings {
        url,
        migrate_url: None,
        password_file: None,
        ca: None,
        connections_max: 16,
        statement_time_max: Duration::from_secs(20),
        durable: true,
    })
}

fn over(server: database::Settings) -> Settings {
    Settings { server, copies: env::temp_dir() }
}

#[tokio::test]
#[ignore = "needs PostgreSQL, which tests/interop/postgres.sh starts"]
async fn a_server_that_would_lose_what_was_acknowledged_is_refused() {
    let mut settings = settings().await;
    settings.server.url = with(&settings.server.url, "options[synchronous_commit]=off");
    let refused = Database::connect(&settings).await;
    assert!(
        matches!(&refused, Err(Error::Unfit(why)) if why.contains("synchronous_commit is off"))
    );
    settings.server.durable = false;
    Database::connect(&settings).await.unwrap();
}

/// What the script says of its server over TLS: the URL, of a name that its certificate has; its CA; and a
/// file with the password.
#[expect(clippy::disallowed_methods, reason = "a test has no other settings")]
fn over_tls() -> database::Settings {
    let of = |name: &str| env::var(format!("BERTH_TEST_POSTGRES_{name}")).unwrap();
    let (password_file, ca) = (Some(of("PASSWORD").into()), Some(of("CA").into()));
    database::Settings { password_file, ca, ..at(of("TLS")).server }
}

#[tokio::test]
#[ignore = "needs PostgreSQL, which tests/interop/postgres.sh starts"]
async fn a_server_elsewhere_shows_its_certificate_and_is_shown_a_password() {
    berth_shared::crypto::install();
    let right = over_tls();
    let database = Database::connect(&over(right.clone())).await.unwrap();
    let statement = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let is_encrypted: bool = database.reader().await.unwrap().one(statement, ()).await.unwrap();
    assert!(is_encrypted);
    let refused = async |server: database::Settings| match Database::connect(&over(server)).await {
        Err(error) => chain(&error),
        Ok(_) => panic!("it was taken"),
    };
    // The system knows no such CA.
    let why = refused(database::Settings { ca: None, ..right.clone() }).await;
    assert!(why.contains("certificate"), "{why}");
    let other = right.url.replace("db.test", "other.test");
    let why = refused(database::Settings { url: other, ..right.clone() }).await;
    assert!(why.contains("certificate"), "{why}");
    let wrong = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(wrong.path(), "not the password").unwrap();
    let wrong = Some(wrong.path().to_owned());
    let why = refused(database::Settings { password_file: wrong, ..right.clone() }).await;
    assert!(why.contains("password") && !why.contains("not the password"), "{why}");
    let missing = Some("/nowhere/db.password".into());
    let why = refused(database::Settings { password_file: missing, ..right }).await;
    assert!(why.contains("/nowhere/db.password"), "{why}");
}

#[tokio::test]
#[ignore = "needs PostgreSQL, which tests/interop/postgres.sh starts"]
async fn a_database_of_another_encoding_is_refused() {
    let name = format!("t{:032x}", fastrand::u128(..));
    execute(format!("CREATE DATABASE {name} ENCODING 'SQL_ASCII' TEMPLATE template0")).await;
    let mut settings = settings().await;
    settings.server.url = with(&server(), &format!("dbname={name}"));
    let refused = Database::connect(&settings).await;
    assert!(matches!(&refused, Err(Error::Unfit(why)) if why.contains("UTF8")), "{refused:?}");
    execute(format!("DROP DATABASE {name}")).await;
}

#[tokio::test]
#[ignore = "needs PostgreSQL, which tests/interop/postgres.sh starts"]
async fn tables_of_a_newer_program_are_refused_if_it_says_so_and_of_none_only_by_who_reads() {
    let settings = settings().await;
    assert!(matches!(Database::connect_beside(&settings).await, Err(Error::Older)));
    let database = Database::connect(&settings).await.unwrap();
    Database::connect_beside(&settings).await.unwrap();
    let newer = async |statement: &'static str| {
        let write = database.write((), move |tx, ()| {
            Box::pin(async move { tx.run(statement, ()).await.map(drop) })
        });
        write.await.unwrap();
    };
    // One that adds something only: this program works on beside one that knows it.
    newer(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (1000000, 'from the future', TRUE, 'x', 0)",
    )
    .await;
    newer("ALTER TABLE blobs ADD COLUMN of_the_future TEXT").await;
    Database::connect(&settings).await.unwrap().check().await.unwrap();
    Database::connect_beside(&settings).await.unwrap();
    let schema = look_at_schema(&settings).await.unwrap();
    assert_eq!((schema.version, schema.missing), (1_000_000, Vec::new()));
    // One that takes away what this program needs.
    newer("UPDATE state SET compatible_from = 1000000").await;
    assert!(matches!(Database::connect(&settings).await, Err(Error::Newer)));
    assert!(matches!(Database::connect_beside(&settings).await, Err(Error::Newer)));
}

#[tokio::test]
#[ignore = "needs PostgreSQL, which tests/interop/postgres.sh starts"]
async fn migrations_go_their_own_way_and_only_when_there_are_any() {
    let mut settings = settings().await;
    let right = settings.server.url.clone();
    settings.server.migrate_url = Some(with(&server(), "dbname=there_is_none"));
    assert!(Database::connect(&settings).await.is_err());
    let other = self::settings().await;
    settings.server.migrate_url = Some(other.server.url.clone());
    let refused = Database::connect(&settings).await;
    assert!(
        matches!(&refused, Err(Error::Unfit(why)) if why.contains("migrate_url")),
        "{refused:?}"
    );
    assert_eq!(look_at_schema(&other).await.unwrap().version, 0);
    let schema = look_at_schema(&settings).await.unwrap();
    assert_eq!((schema.version, schema.missing.len() as i64), (0, schema.known));
    settings.server.migrate_url = Some(right);
    migrate(&settings).await.unwrap();
    settings.server.migrate_url = Some(with(&server(), "dbname=there_is_none"));
    Database::connect(&settings).await.unwrap().check().await.unwrap();
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

#[tokio::test]
#[ignore = "needs PostgreSQL, which tests/interop/postgres.sh starts"]
async fn one_process_at_a_time_has_a_database_also_when_its_connection_breaks() {
    const END: &str = "SELECT pg_terminate_backend(pid) FROM pg_locks
         WHERE locktype = 'advisory' AND granted";
    let settings = settings().await;
    let _database = Database::connect(&settings).await.unwrap();
    let try_to = async |most| Alone::take(&settings, most).await.unwrap();
    let take = async || match try_to(Duration::from_secs(10)).await {
        Taken::Alone(alone) => alone,
        taken => panic!("{taken:?}"),
    };
    let first = take().await;
    assert!(matches!(try_to(Duration::ZERO).await, Taken::Used));
    drop(first);
    let second = tokio::spawn(take().await.hold());
    execute(END.to_owned()).await;
    // Who is quicker has it, and the other one hears of it.
    let third = take().await;
    second.await.unwrap();
    drop(third);
}

#[tokio::test]
#[ignore = "needs PostgreSQL, which tests/interop/postgres.sh starts"]
async fn who_shares_a_registry_and_who_has_it_alone_see_each_other() {
    let settings = settings().await;
    let database = Database::connect(&settings).await.unwrap();
    let clock = Clock::system();
    let presence = Sign::show(Kind::Presence, &database, &clock).await.unwrap();
    assert!(!database.is_anybodys_alone().await.unwrap());
    let taken = Alone::take(&settings, Duration::ZERO).await.unwrap();
    assert!(matches!(taken, Taken::Shared), "{taken:?}");
    presence.end().await;
    let taken = Alone::take(&settings, Duration::from_secs(10)).await.unwrap();
    assert!(matches!(taken, Taken::Alone(_)), "{taken:?}");
    assert!(database.is_anybodys_alone().await.unwrap());
    drop(taken);
    while database.is_anybodys_alone().await.unwrap() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
#[ignore = "needs PostgreSQL, which tests/interop/postgres.sh starts"]
async fn no_transaction_is_committed_by_whom_the_switch_was_set_for() {
    let database = Database::connect(&settings().await).await.unwrap();
    let work = async || {
        let name = "app".parse().unwrap();
        let made = database
            .write(name, |tx, name| Box::pin(async move { repository::ensure(tx, name).await }));
        made.await.map(drop)
    };
    database.set_read_only(Some(UnixSeconds::new(5))).await.unwrap();
    // Nobody has looked yet.
    work().await.unwrap();
    assert_eq!(database.read_only_since().await.unwrap(), Some(UnixSeconds::new(5)));
    assert!(matches!(work().await, Err(Error::ReadOnly)));
    // Since when it is so stays.
    database.set_read_only(Some(UnixSeconds::new(6))).await.unwrap();
    assert_eq!(database.read_only_since().await.unwrap(), Some(UnixSeconds::new(5)));
    database.set_read_only(None).await.unwrap();
    let mut eye = database.eye().unwrap();
    eye.look().await.unwrap();
    work().await.unwrap();
    // A server that gave up stays so, whatever is said.
    database.switch().unwrap().give_up();
    eye.look().await.unwrap();
    assert!(matches!(work().await, Err(Error::ReadOnly)));
    assert_eq!(database.open_transactions(Duration::ZERO).await.unwrap(), 0);
}
