//! Several servers on one database: what they do at once, and what one sees of the others.
//!
//! `tests/interop/postgres.sh` starts the server, and runs them.

use std::{env, sync::Arc};

use berth_shared::{
    clock::{Clock, UnixSeconds},
    database::Settings,
    rights::{Effect, Rule},
    subject::{Grantee, Subject, UserName},
};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use super::*;
use crate::{
    audit::{Act, Author, entry::Entry},
    database::{Database, audit::Kept, refresh_tokens::NewRefreshToken},
};

const NOW: UnixSeconds = UnixSeconds::new(1_790_000_000);

#[expect(clippy::disallowed_methods, reason = "a test has no other settings")]
fn server() -> String {
    env::var("BERTH_TEST_POSTGRES").expect("the URL of a PostgreSQL server, BERTH_TEST_POSTGRES")
}

/// A database of the test's own, which is a schema.
struct Ground(Settings);

impl Ground {
    async fn new() -> Self {
        let (url, schema) = (server(), format!("t{:032x}", fastrand::u128(..)));
        let mut connection = PgConnection::connect(&url).await.unwrap();
        let make = AssertSqlSafe(format!("CREATE SCHEMA {schema}"));
        sqlx::query(make).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        let join = if url.contains('?') { '&' } else { '?' };
        Self(Settings {
            url: format!("{url}{join}options[search_path]={schema}"),
            migrate_url: None,
            password_file: None,
            ca: None,
            connections_max: 8,
            statement_time_max: Duration::from_secs(20),
            durable: false,
        })
    }

    /// Another process on it.
    async fn open(&self) -> Database {
        Database::connect(&self.0).await.unwrap()
    }

    async fn ask<T>(&self, statement: &'static str) -> T
    where
        T: for<'r> sqlx::Decode<'r, Postgres> + sqlx::Type<Postgres> + Send + Unpin,
    {
        let mut connection = PROGRAM.connect_alone(&self.0).await.unwrap();
        sqlx::query_scalar(statement).fetch_one(&mut connection).await.unwrap()
    }
}

fn andrew() -> UserName {
    "andrew".parse().unwrap()
}

fn rule() -> Rule {
    Rule {
        grantee: "andrew".parse().unwrap(),
        pattern: "team/**".parse().unwrap(),
        effect: Effect::Allow,
        actions: "pull".parse().unwrap(),
        expires: None,
    }
}

#[tokio::test]
#[ignore = "needs PostgreSQL, which tests/interop/postgres.sh starts"]
async fn acts_follow_each_other_and_rows_of_the_audit_are_numbered_without_a_gap() {
    let ground = Ground::new().await;
    let servers = [ground.open().await, ground.open().await, ground.open().await].map(Arc::new);
    let working: Vec<_> = servers
        .iter()
        .map(|server| {
            let server = Arc::clone(server);
            tokio::spawn(async move {
                let mut seen = 0;
                for n in 0..20 {
                    server.void_tokens(&Grantee::User(andrew())).await.unwrap();
                    server.append_entries(&vec![Entry::gap(NOW, n); 3], 0).await.unwrap();
                    let policy = server.policy().await.unwrap();
                    assert!(policy.sequence > seen, "an act moves it on");
                    assert!(policy.revocations.sequence == policy.sequence);
                    seen = policy.sequence;
                }
            })
        })
        .collect();
    for work in working {
        work.await.unwrap();
    }
    let rows = servers[0].rows_after(0, 1000).await.unwrap();
    assert!(rows.iter().map(|row| row.id).eq(1..=3 * 20 * 4));
    let sequence = servers[0].policy().await.unwrap().sequence;
    assert!(sequence > 1_700_000_000_000, "there is the time in it: {sequence}");
    let least = servers[1].policy().await.unwrap().revocations.least_for(&Subject::User(andrew()));
    assert_eq!(least, sequence);
}

#[tokio::test]
#[ignore = "needs PostgreSQL, which tests/interop/postgres.sh starts"]
async fn no_refresh_token_outlives_what_voids_it_meanwhile() {
    let ground = Ground::new().await;
    let (one, other) = (ground.open().await, ground.open().await);
    for n in 0..30 {
        let new = NewRefreshToken {
            hash: format!("hash {n}"),
            subject: Subject::User(andrew()),
            credential: "print".to_owned(),
            client: "docker".to_owned(),
            sequence: one.policy().await.unwrap().sequence,
        };
        let grantee = Grantee::User(andrew());
        let (kept, voided) = tokio::join!(
            one.keep_refresh_token(&new, NOW, UnixSeconds::new(0)),
            other.void_tokens(&grantee)
        );
        kept.unwrap();
        voided.unwrap();
        assert!(other.find_refresh_token(&new.hash).await.unwrap().is_none(), "{n}");
    }
}

#[tokio::test]
#[ignore = "needs PostgreSQL, which tests/interop/postgres.sh starts"]
async fn the_next_look_sees_what_another_did_and_reads_for_acts_alone() {
    let ground = Ground::new().await;
    let (server, authctl) = (ground.open().await, ground.open().await);
    let mut before = server.policy().await.unwrap();
    let mut changed = async |is_act: bool, what: &str| {
        let after = server.policy().await.unwrap();
        assert_eq!(!Arc::ptr_eq(&before, &after), is_act, "{what}");
        before = after;
    };
    let (name, hash) = (andrew(), "$2y$04$.....................................................");
    assert!(authctl.put_user(&name, hash, false, &Act::UserAdd(&name)).await.unwrap());
    changed(true, "a user").await;
    authctl.append_entries(&[Entry::gap(NOW, 1)], 0).await.unwrap();
    changed(false, "what clients cause").await;
    authctl.add_rules(&[rule()], NOW).await.unwrap();
    changed(true, "a rule").await;
    authctl.clear_counters(NOW, NOW).await.unwrap();
    changed(false, "a mark").await;
    let sequence = server.policy().await.unwrap().sequence;
    assert!(authctl.put_user(&name, hash, true, &Act::UserPassword(&name)).await.unwrap());
    changed(true, "a password").await;
    let policy = server.policy().await.unwrap();
    assert!(policy.revocations.least_for(&Subject::User(andrew())) > sequence);
    assert!(!authctl.put_user(&name, hash, false, &Act::UserAdd(&name)).await.unwrap());
    assert_eq!(authctl.delete_user(&name).await.unwrap(), 1);
    let policy = server.policy().await.unwrap();
    assert!(
        policy.users.as_ref().is_some_and(|users| users.is_empty()) && policy.rules().is_empty()
    );
}

#[tokio::test]
#[ignore = "needs PostgreSQL, which tests/interop/postgres.sh starts"]
async fn the_table_of_users_becomes_what_a_file_says() {
    let ground = Ground::new().await;
    let database = ground.open().await;
    let users = |pairs: &[(&str, &str)]| {
        let user = |(name, hash): &(&str, &str)| (name.parse().unwrap(), (*hash).to_owned());
        pairs.iter().map(user).collect::<std::collections::BTreeMap<UserName, String>>()
    };
    let names = |list: &[UserName]| list.iter().map(UserName::to_string).collect::<Vec<_>>();
    let first = users(&[("a", "1"), ("b", "1"), ("c", "1")]);
    let changes = database.apply_users(&first, false, false).await.unwrap();
    assert_eq!(names(&changes.added), ["a", "b", "c"]);
    let sequence = database.policy().await.unwrap().sequence;
    let second = users(&[("a", "1"), ("b", "2"), ("d", "1")]);
    let dry = database.apply_users(&second, true, true).await.unwrap();
    assert_eq!(database.policy().await.unwrap().users.as_deref(), Some(&first));
    assert_eq!(database.apply_users(&second, true, false).await.unwrap(), dry);
    assert_eq!(
        (names(&dry.added), names(&dry.changed), names(&dry.removed)),
        (vec!["d".to_owned()], vec!["b".to_owned()], vec!["c".to_owned()])
    );
    let policy = database.policy().await.unwrap();
    let least = |name: &str| policy.revocations.least_for(&Subject::User(name.parse().unwrap()));
    assert_eq!((least("a"), least("d")), (0, 0));
    assert!(least("b") > sequence && least("c") > sequence);
    assert_eq!(policy.users.as_deref(), Some(&second));
}

#[tokio::test]
#[ignore = "needs PostgreSQL, which tests/interop/postgres.sh starts"]
async fn marks_are_an_hour_apart_whoever_sets_them() {
    let ground = Ground::new().await;
    let (one, other) = (ground.open().await, ground.open().await);
    one.clear_counters(NOW, NOW).await.unwrap();
    // The other's hour began before that mark: it begins another.
    other.clear_counters(NOW + 1, NOW).await.unwrap();
    assert_eq!(ground.ask::<i64>("SELECT COUNT(*) FROM counter_marks").await, 1);
    other.clear_counters(NOW + 3601, NOW).await.unwrap();
    one.clear_counters(NOW + 3602, NOW).await.unwrap();
    assert_eq!(ground.ask::<i64>("SELECT COUNT(*) FROM counter_marks").await, 2);
}

#[tokio::test]
#[ignore = "needs PostgreSQL, which tests/interop/postgres.sh starts"]
async fn two_that_clear_the_audit_at_once_clear_no_more_than_is_too_much() {
    let ground = Ground::new().await;
    let (one, other) = (ground.open().await, ground.open().await);
    one.append_entries(&vec![Entry::gap(NOW, 1); 3000], 0).await.unwrap();
    let kept = Kept { rows_max: 1000, failure_rows_max: 1000 };
    let (a, b) = tokio::join!(one.clear_rows(kept, i64::MAX), other.clear_rows(kept, i64::MAX));
    a.unwrap();
    b.unwrap();
    assert_eq!(ground.ask::<i64>("SELECT COUNT(*) FROM audit").await, 1000);
}

#[tokio::test]
#[ignore = "needs PostgreSQL, which tests/interop/postgres.sh starts"]
async fn another_database_in_its_place_is_noticed_and_the_clock_is_its_own() {
    let ground = Ground::new().await;
    let database = ground.open().await;
    let database = database.acting(Author::process(Clock::set(NOW)));
    assert!(database.policy().await.is_ok() && database.is_shared());
    assert!(database.time().await.unwrap().is_some());
    assert!(matches!(database.check().await, Err(Error::OfFile)));
    let _: String = ground.ask("UPDATE state SET identity = 'another' RETURNING identity").await;
    assert!(matches!(database.policy().await, Err(Error::Exchanged)));
}

#[tokio::test]
#[ignore = "needs PostgreSQL, which tests/interop/postgres.sh starts"]
async fn what_a_failover_lost_hides_nothing_that_comes_behind_it() {
    let ground = Ground::new().await;
    let (server, authctl) = (ground.open().await, ground.open().await);
    authctl.add_rules(&[rule()], NOW).await.unwrap();
    assert_eq!(server.policy().await.unwrap().rules().len(), 1);
    // The copy that is gone on with has not seen the act: its number is a lower one again, and rises.
    let mut connection = PROGRAM.connect_alone(&ground.0).await.unwrap();
    for lost in ["DELETE FROM grants", "UPDATE policy_version SET value = 3"] {
        sqlx::query(lost).execute(&mut connection).await.unwrap();
    }
    authctl.void_tokens(&Grantee::User(andrew())).await.unwrap();
    let policy = server.policy().await.unwrap();
    assert!(policy.rules().is_empty());
    assert!(policy.revocations.least_for(&Subject::User(andrew())) > 0);
}
