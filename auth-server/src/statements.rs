//! What statements cost: none reads all of a table that grows with use.
//!
//! Whoever adds a statement adds what makes it to [`everything`].

use std::path::Path;

use berth_shared::{
    clock::UnixSeconds,
    rights::{Effect, Rule},
    subject::{RobotName, Subject, UserName},
};
use sqlx::{ConnectOptions, SqliteConnection, sqlite::SqliteConnectOptions};

use crate::{
    audit::{Act, entry::Entry},
    database::{
        Database, Error,
        apply::Desired,
        audit::{Filter, Kept},
        policy::robots::Robot,
        refresh_tokens::NewRefreshToken,
        sign_in_addresses::SignInAddress,
        snapshot::last_sequence,
    },
    plans::{
        ReadsAll, Recording, complaints, keys_without_index,
        portable::{self, OfSqlite},
    },
    secrets::robot::RobotSecret,
    trust::{KeySource, RequiredClaims, Trust},
};

/// What is held in memory as a whole is read as a whole, on the reader, when an administrator has
/// changed it; no client makes any of these rows.
const POLICY: &str = "the policy is held as a whole, and read when an administrator changed it";

/// What begins at an id, and ends with the page.
const PAGE: &str = "every row behind the id is one of the page, and the limit ends it";

/// What reads all of a table, or sorts, or seems to.
const READ_ALL: [ReadsAll; 18] = [
    ReadsAll { statement: "SELECT grantee, counter FROM counters", why: POLICY },
    ReadsAll { statement: "SELECT grantee, pattern, effect, actions, expires FROM g", why: POLICY },
    ReadsAll { statement: "SELECT group_name, member FROM group_members", why: POLICY },
    ReadsAll { statement: "SELECT name, secret_hash, created, expires, last", why: POLICY },
    ReadsAll { statement: "SELECT name, issuer, audience", why: POLICY },
    ReadsAll {
        statement: "SELECT name, fingerprint FROM htpasswd_seen",
        why: "compared with the users of the file, which is read as a whole when it has changed",
    },
    ReadsAll {
        statement: "INSERT INTO counter_marks",
        why: "marks are an hour apart, and those of a week are kept",
    },
    ReadsAll { statement: "SELECT id, sequence FROM counter_marks", why: "the same" },
    ReadsAll { statement: "DELETE FROM counter_marks", why: "the same" },
    ReadsAll {
        statement: "DELETE FROM refresh_tokens",
        why: "ends all of them, as an administrator asked, in one act",
    },
    ReadsAll {
        statement: "SELECT ring, rows FROM audit_rings",
        why: "a row for each of eight rings",
    },
    ReadsAll {
        statement: "SELECT id, subject, credential, client, created, last_used FROM refresh_tokens \
                    WHERE subject",
        why: "sorts those of one subject, as many as an account may have",
    },
    ReadsAll {
        statement: "SELECT id, subject, credential, client, created, last_used FROM refresh_tokens \
                    WHERE id",
        why: PAGE,
    },
    ReadsAll {
        statement: "DELETE FROM sign_in_addresses WHERE name = $1 AND",
        why: "sorts those of one name, as many as are kept and the new one",
    },
    ReadsAll {
        statement: "SELECT id, at, event, subject, actor, detail, ring FROM audit WHERE id > $1",
        why: PAGE,
    },
    ReadsAll {
        statement: "SELECT id, at, event, subject, actor, detail, ring FROM audit WHERE id >= C",
        why: "`authctl audit` looks through what its filter may be about, in a process of its own",
    },
    ReadsAll { statement: "VACUUM INTO", why: "a copy is of everything; authctl makes it" },
    ReadsAll {
        statement: "PRAGMA integrity_check",
        why: "looks through a backup that is restored, which nobody serves",
    },
];

/// What is SQLite's own here alone.
const OF_SQLITE: [OfSqlite; 2] = [
    OfSqlite { statement: "PRAGMA data_version", why: "asks whether others have committed" },
    OfSqlite { statement: "PRAGMA journal_mode", why: "leaves one file of the database" },
];

/// A hundred thousand rows each.
const TABLES: [&str; 10] = [
    "INSERT INTO grants (grantee, pattern, actions, created, expires)
     SELECT 'user' || n, 'team/' || n, 'pull', 0, IIF(n % 2, n, NULL) FROM numbers",
    "INSERT INTO counters (grantee, counter) SELECT 'user' || n, n FROM numbers",
    "INSERT INTO htpasswd_seen (name, fingerprint) SELECT 'user' || n, 'print' FROM numbers",
    "INSERT INTO group_members (group_name, member) SELECT 'group', 'user' || n FROM numbers",
    "INSERT INTO robots (name, secret_hash, created) SELECT 'robot.' || n, n, 0 FROM numbers",
    "INSERT INTO audit (at, event, subject, actor, detail)
     SELECT n, 'token.issue', 'user' || n, IIF(n % 10, NULL, 'root'), '{}' FROM numbers",
    "INSERT INTO refresh_tokens (hash, subject, credential, client, created, last_used)
     SELECT n, 'user' || n, 'c', 'docker', n, n FROM numbers",
    "INSERT INTO sign_in_addresses (name, address, seen)
     SELECT 'user' || n, '192.0.2.1', n FROM numbers",
    "INSERT INTO trusts (name, issuer, audience, subject, claims, created)
     SELECT 'robot.t' || n, 'https://issuer.test', 'a', 's', '{}', 0 FROM numbers",
    "INSERT INTO counter_marks (at, sequence) SELECT n, n FROM numbers WHERE n < 200",
];

const NOW: UnixSeconds = UnixSeconds::new(1_790_000_000);

/// A large database in the directory, and a connection to it.
async fn large(directory: &Path) -> SqliteConnection {
    let path = directory.join("auth.db");
    Database::open(&path).await.unwrap().close().await.unwrap();
    let mut connection = SqliteConnectOptions::new().filename(&path).connect().await.unwrap();
    let numbers = "CREATE TEMP TABLE numbers AS WITH RECURSIVE count (n) AS (
             VALUES (1) UNION ALL SELECT n + 1 FROM count LIMIT 100000) SELECT n FROM count";
    for statement in ["PRAGMA synchronous = OFF", numbers, "BEGIN"] {
        sqlx::query(statement).execute(&mut connection).await.unwrap();
    }
    for statement in TABLES.into_iter().chain(["COMMIT"]) {
        sqlx::query(statement).execute(&mut connection).await.unwrap();
    }
    connection
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_statement_reads_all_of_a_table() {
    let recording = Recording::start();
    everything().await;
    let directory = tempfile::tempdir().unwrap();
    let mut connection = large(directory.path()).await;
    assert_eq!(keys_without_index(&mut connection).await, Vec::<String>::new());
    let run = recording.statements();
    let (complaints, statements) = complaints(&run, &READ_ALL, &mut connection).await;
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    portable::write(&statements, &OF_SQLITE, &mut connection).await;
}

fn rule(grantee: &str, effect: Effect, expires: Option<UnixSeconds>) -> Rule {
    Rule {
        grantee: grantee.parse().unwrap(),
        pattern: "team/**".parse().unwrap(),
        effect,
        actions: "pull,push".parse().unwrap(),
        expires,
    }
}

/// Does everything that makes statements, once.
async fn everything() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("auth.db");
    Database::open(&path).await.unwrap().close().await.unwrap();
    let database = Database::open(&path).await.unwrap();
    users(&database).await;
    rules(&database).await;
    machines(&database).await;
    refresh_tokens(&database).await;
    audit(&database).await;
    for hour in 0..10 * 24 {
        let now = NOW + hour * 60 * 60;
        database.clear_counters(now, now).await.unwrap();
    }
    database.void_all_tokens(1000).await.unwrap();
    database.check().await.unwrap();
    assert_eq!(database.foreign_schema().await.unwrap(), None);
    // Another's act makes the policy be read again.
    let other = Database::open(&path).await.unwrap();
    other.add_rules(&[rule("bea", Effect::Allow, None)], NOW).await.unwrap();
    database.policy().await.unwrap();
    drop(other);
    database.snapshot(&dir.path().join("copy.db")).await.unwrap();
    // The other handle's connections end in threads of their own.
    let _ = database.close().await;
    last_sequence(&path).await.unwrap();
}

async fn users(database: &Database) {
    let names = ["andrew", "bea", "carol"];
    let mut users: std::collections::BTreeMap<UserName, String> =
        names.iter().map(|name| (name.parse().unwrap(), "print".to_owned())).collect();
    database.reconcile_users(&users).await.unwrap();
    let andrew: UserName = "andrew".parse().unwrap();
    let saved = || Ok::<_, Error>(());
    users.insert(andrew.clone(), "another".to_owned());
    database.set_user(&users, &andrew, &Act::UserPassword(&andrew), saved).await.unwrap();
    let seen = SignInAddress { user: andrew, address: [192, 0, 2, 1].into(), seen: NOW };
    database.note_sign_in_address(&seen).await.unwrap();
    database.sign_in_addresses(NOW).await.unwrap();
    let carol: UserName = "carol".parse().unwrap();
    users.remove(&carol);
    database.remove_user(&users, &carol, saved).await.unwrap();
}

async fn rules(database: &Database) {
    let (andrew, team) = ("andrew".parse().unwrap(), "team/**".parse().unwrap());
    let allow = rule("andrew", Effect::Allow, None);
    database.add_rules(&[allow.clone(), rule("group:g", Effect::Deny, None)], NOW).await.unwrap();
    database.add_rules(&[allow], NOW).await.unwrap();
    database.take_actions(&andrew, &team, Effect::Allow, "push".parse().unwrap()).await.unwrap();
    let member = [Subject::from_claim("andrew").unwrap()];
    let group = "g".parse().unwrap();
    database.join_group(&group, &member).await.unwrap();
    database.void_tokens(&"group:g".parse().unwrap()).await.unwrap();
    database.leave_group(&group, &member).await.unwrap();
    let mut desired = Desired::default();
    desired.rules.push(rule("bea", Effect::Allow, Some(NOW + 100)));
    desired.groups.insert(group, member.into());
    database.apply(&desired, true, false, NOW).await.unwrap();
    database.apply(&Desired::default(), true, false, NOW).await.unwrap();
}

async fn machines(database: &Database) {
    let (robot, trusted): (RobotName, RobotName) =
        ("robot.a".parse().unwrap(), "robot.b".parse().unwrap());
    let made = Robot { name: robot.clone(), created: NOW, expires: None, last_used: None };
    let secret = RobotSecret::generate().unwrap();
    assert!(database.create_robot(&made, &secret, &[]).await.unwrap());
    database.note_robot(&robot, NOW).await.unwrap();
    assert!(database.remove_robot(&robot).await.unwrap());
    let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
    let keys = format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","kid":"a","x":"{x}"}}]}}"#);
    let trust = Trust {
        name: trusted.clone(),
        issuer: "https://issuer.test/".parse().unwrap(),
        audience: "reg.test".parse().unwrap(),
        subject: "repo:org/*:ref:refs/heads/main".parse().unwrap(),
        claims: RequiredClaims::all(["owner_id=7".parse().unwrap()]).unwrap(),
        keys: KeySource::Inline(keys.parse().unwrap()),
        created: NOW,
        last_used: None,
    };
    assert!(database.add_trust(&trust, &[]).await.unwrap());
    database.note_trust(&trusted, NOW).await.unwrap();
    assert!(database.remove_trust(&trusted).await.unwrap());
}

async fn refresh_tokens(database: &Database) {
    let subject = Subject::from_claim("andrew").unwrap();
    let new = NewRefreshToken {
        hash: "hash".to_owned(),
        subject: subject.clone(),
        credential: "credential".to_owned(),
        client: "docker".to_owned(),
        sequence: 1000,
    };
    let id = database.keep_refresh_token(&new, NOW, UnixSeconds::new(0)).await.unwrap().unwrap();
    assert!(database.find_refresh_token("hash").await.unwrap().is_some());
    database.note_refresh_token(id, NOW + 1).await.unwrap();
    assert_eq!(database.refresh_tokens(None).await.unwrap().len(), 1);
    assert_eq!(database.refresh_tokens(Some(&subject)).await.unwrap().len(), 1);
    assert_eq!(database.end_refresh_tokens(&[id]).await.unwrap().len(), 1);
}

async fn audit(database: &Database) {
    let andrew = "andrew".parse().unwrap();
    database.record(&Act::UserAdd(&andrew)).await.unwrap();
    database.append_entries(&vec![Entry::gap(NOW, 1); 50], 0).await.unwrap();
    database.clear_rows(Kept { rows_max: 1, failure_rows_max: 1 }, 0).await.unwrap();
    database.exported_row().await.unwrap();
    database.rows_after(0, 10).await.unwrap();
    database.list_rows(&Filter::default(), 10).await.unwrap();
}
