//! The rows on both engines, and keys that are changed through them: in a file of SQLite that has the
//! table, and on a server of PostgreSQL, where an act is done here as the order of acts has it.

use std::{env, path::Path, time::Duration};

use data_encoding::HEXLOWER;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use berth_shared::clock::UnixSeconds;

use super::*;
use crate::random;

/// How long an answer is waited for.
pub(crate) const ANSWER: Duration = Duration::from_secs(20);

/// A database in `dir` that has the table, which no other of SQLite has.
pub(crate) async fn database_with_keys(dir: &Path) -> Database {
    let database = Database::open(&dir.join("auth.db")).await.unwrap();
    let table = "CREATE TABLE IF NOT EXISTS signing_keys (
         name TEXT PRIMARY KEY, algorithm TEXT NOT NULL, state TEXT NOT NULL,
         made INTEGER NOT NULL, since INTEGER NOT NULL, token_life_secs INTEGER NOT NULL,
         until INTEGER, sealed BLOB NOT NULL)";
    let made = database
        .act(table, |tx, table| Box::pin(async move { tx.run(*table, ()).await.map(drop) }));
    made.await.unwrap();
    database
}

/// A schema of the test's own at a server of PostgreSQL, with its tables.
pub(crate) struct Server {
    url: String,
}

impl Server {
    /// A fresh one.
    #[expect(clippy::disallowed_methods, reason = "a test has no other settings")]
    pub(crate) async fn fresh() -> Self {
        let server = env::var("BERTH_TEST_POSTGRES")
            .expect("the URL of a PostgreSQL server, BERTH_TEST_POSTGRES");
        let schema = format!("t{}", HEXLOWER.encode(&random::bytes::<16>().unwrap()));
        let mut connection = PgConnection::connect(&server).await.unwrap();
        let make = AssertSqlSafe(format!("CREATE SCHEMA {schema}"));
        sqlx::query(make).execute(&mut connection).await.unwrap();
        let mark = if server.contains('?') { '&' } else { '?' };
        let fresh = Self { url: format!("{server}{mark}options[search_path]={schema}") };
        let migrations = sqlx::migrate!("migrations/postgres");
        migrations.run(&mut fresh.connect().await).await.unwrap();
        fresh
    }

    /// A connection to it.
    pub(crate) async fn connect(&self) -> PgConnection {
        PgConnection::connect(&self.url).await.unwrap()
    }

    /// What the keys are now.
    pub(crate) async fn keys(&self) -> Vec<SealedKey> {
        let mut connection = self.connect().await;
        read(&mut Connection::Postgres(&mut connection, ANSWER)).await.unwrap()
    }

    /// How often they were changed.
    pub(crate) async fn version(&self) -> i64 {
        let mut connection = self.connect().await;
        let mut connection = Connection::Postgres(&mut connection, ANSWER);
        connection.one("SELECT value FROM keys_version", ()).await.unwrap()
    }

    /// Changes them in one act: what comes of it, and whether tokens are void.
    pub(crate) async fn change<T, E>(
        &self,
        change: impl Fn(&[SealedKey]) -> Result<KeyChange<T>, E>,
    ) -> Result<(T, bool), E> {
        let mut connection = self.connect().await;
        let mut transaction = connection.begin().await.unwrap();
        let on = &mut Connection::Postgres(&mut transaction, ANSWER);
        let order = "SELECT value FROM sequence WHERE id = 1 FOR UPDATE";
        on.one::<i64>(order, ()).await.unwrap();
        let before = read(on).await.unwrap();
        let changed = change(&before)?;
        replace(on, &before, &changed.keys).await.unwrap();
        transaction.commit().await.unwrap();
        Ok((changed.done, changed.voids_tokens))
    }
}

fn key(name: &str, state: &str, until: Option<i64>) -> SealedKey {
    SealedKey {
        name: name.to_owned(),
        algorithm: "es256".to_owned(),
        state: state.to_owned(),
        made: UnixSeconds::new(5),
        since: UnixSeconds::new(6),
        token_life_secs: 900,
        until: until.map(UnixSeconds::new),
        sealed: vec![0, 1, 255],
    }
}

/// One step after the other, each of which replaces all.
fn steps() -> [Vec<SealedKey>; 4] {
    let (a, b, c) = (key("a", "active", None), key("b", "next", None), key("c", "next", None));
    let retired = SealedKey { sealed: Vec::new(), ..key("a", "retired", Some(7)) };
    let signs = key("b", "active", None);
    [vec![a, b], vec![retired, signs.clone(), c], vec![signs], Vec::new()]
}

fn to(keys: &[SealedKey]) -> impl Fn(&[SealedKey]) -> Result<KeyChange<()>, String> + '_ {
    |_| {
        let keys = keys.to_vec();
        Ok(KeyChange { keys, voids_tokens: false, done: (), acts: |()| Vec::new() })
    }
}

#[tokio::test]
async fn rows_are_replaced_by_those_that_are_to_be() {
    let dir = tempfile::tempdir().unwrap();
    let database = database_with_keys(dir.path()).await;
    for keys in steps() {
        database.change_signing_keys(to(&keys)).await.unwrap().unwrap();
        assert!(database.signing_keys().await.unwrap() == keys);
    }
    database.change_signing_keys(to(&steps()[0])).await.unwrap().unwrap();
    let refused = |_: &[SealedKey]| Err::<KeyChange<()>, _>("no");
    assert_eq!(database.change_signing_keys(refused).await.unwrap(), Err("no"));
    assert!(database.signing_keys().await.unwrap() == steps()[0]);
}

#[tokio::test]
#[ignore = "needs PostgreSQL: BERTH_TEST_POSTGRES"]
async fn on_postgres_each_change_raises_the_version_and_none_that_is_nothing() {
    let server = Server::fresh().await;
    let mut version = server.version().await;
    for keys in steps() {
        server.change(to(&keys)).await.unwrap();
        assert!(server.keys().await == keys);
        assert!(server.version().await > version);
        version = server.version().await;
        server.change(to(&keys)).await.unwrap();
        assert_eq!(server.version().await, version);
    }
}
