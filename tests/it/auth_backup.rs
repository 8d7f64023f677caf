//! `authctl backup` and `restore`: what auth-server knows comes back, and what was revoked stays so.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use auth_server::{
    audit::Author,
    backup::{self, Error},
    config::Config,
};
use berth_shared::clock::{Clock, UnixSeconds};
use harness::{Stack, eventually, image::digest_of, stack::PASSWORD};
use sqlx::{ConnectOptions, Connection, Executor, sqlite::SqliteConnectOptions};

use crate::revocation::revoke;

fn config(stack: &Stack) -> Config {
    Config::load(&stack.root().join("auth.toml")).expect("the settings")
}

/// Who restores, and when.
fn by(now: UnixSeconds) -> Author {
    Author::process(Clock::set(now))
}

/// The directory that backup.json names.
fn files_of(backup: &Path) -> PathBuf {
    let text = fs::read(backup.join("backup.json")).expect("backup.json");
    let contents: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
    backup.join(contents["directory"].as_str().expect("a directory"))
}

async fn signs_in(stack: &Stack, user: &str) -> bool {
    let call = stack.client.call("GET", "/token?service=berth").basic(user, PASSWORD);
    call.send().await.status == 200
}

/// Whether the token lets its bearer push to `app`.
async fn may_push(stack: &Stack, token: &str) -> bool {
    let call = stack.client.call("POST", "/v2/app/blobs/uploads/").bearer(token);
    let status = call.send().await.status.as_u16();
    assert!([202, 401].contains(&status), "{status}");
    status == 202
}

async fn becomes_void(stack: &Stack, token: &str) {
    eventually("the token is void", async || (!may_push(stack, token).await).then_some(())).await;
}

fn rewrite_contents(backup: &Path, change: impl FnOnce(&mut serde_json::Value)) {
    let path = backup.join("backup.json");
    let mut contents = serde_json::from_slice(&fs::read(&path).expect("reading")).expect("JSON");
    change(&mut contents);
    fs::write(&path, contents.to_string()).expect("writing");
}

#[tokio::test]
async fn what_was_lost_is_there_again() {
    let mut stack = Stack::start().await;
    stack.set_password("bea", PASSWORD);
    stack.grant("bea", "app:push").await;
    let (config, to) = (config(&stack), stack.root().join("copy"));
    // While the server runs, and twice: the second takes the place of the first.
    backup::backup(&config, &to, UnixSeconds::new(0)).await.expect("a backup");
    backup::backup(&config, &to, UnixSeconds::new(0)).await.expect("a backup");
    // The lock, backup.json, and one directory of files.
    assert_eq!(fs::read_dir(&to).expect("the backup").count(), 3);
    for file in ["auth.db", "htpasswd"] {
        let path = files_of(&to).join(file);
        assert_eq!(fs::metadata(path).expect(file).permissions().mode() & 0o777, 0o600);
    }

    stack.stop_auth().await;
    fs::remove_dir_all(stack.root().join("auth")).expect("losing the data");
    fs::remove_file(stack.root().join("htpasswd")).expect("losing the users");
    backup::restore(&config, &to, false, &by(stack.clock.now())).await.expect("a restore");
    stack.start_auth().await;
    assert!(signs_in(&stack, "bea").await);
    let token = stack.token("bea", &["repository:app:pull,push"]).await;
    assert!(may_push(&stack, &token).await);
}

#[tokio::test]
async fn tokens_from_before_a_restore_are_void_and_revoking_works_after_it() {
    let mut stack = Stack::start().await;
    stack.grant("andrew", "app:push").await;
    let (config, to) = (config(&stack), stack.root().join("copy"));
    backup::backup(&config, &to, UnixSeconds::new(0)).await.expect("a backup");
    // What the backup does not know: the sequence moves on, and a token is issued after that.
    stack.grant("andrew", "other:push").await;
    revoke(&stack, "andrew", "other:push").await;
    let before = stack.token("andrew", &["repository:app:push"]).await;
    assert!(may_push(&stack, &before).await);

    stack.stop_auth().await;
    backup::restore(&config, &to, true, &by(stack.clock.now())).await.expect("a restore");
    stack.start_auth().await;
    becomes_void(&stack, &before).await;
    let after = stack.token("andrew", &["repository:app:push"]).await;
    assert!(may_push(&stack, &after).await);
    revoke(&stack, "andrew", "app:push").await;
    becomes_void(&stack, &after).await;
}

#[tokio::test]
async fn nothing_changes_when_a_restore_is_refused() {
    let mut stack = Stack::start().await;
    let (config, to) = (config(&stack), stack.root().join("copy"));
    let contents = backup::backup(&config, &to, UnixSeconds::new(0)).await.expect("a backup");
    let now = stack.clock.now();

    let running = backup::restore(&config, &to, true, &by(now)).await.expect_err("the server runs");
    assert!(matches!(running, Error::Locked(_)), "{running}");
    stack.stop_auth().await;
    let there = backup::restore(&config, &to, false, &by(now)).await.expect_err("there is data");
    assert!(matches!(there, Error::Exists(_)), "{there}");
    let nothing =
        backup::restore(&config, stack.root(), true, &by(now)).await.expect_err("no backup");
    assert!(matches!(nothing, Error::NoBackup(_)), "{nothing}");
    let other = contents.directory.clone();
    rewrite_contents(&to, |contents| contents["files"] = serde_json::json!({}));
    let empty =
        backup::restore(&config, &to, true, &by(now)).await.expect_err("no files are named");
    assert!(matches!(empty, Error::NoBackup(_)), "{empty}");
    rewrite_contents(&to, |stored| *stored = serde_json::json!(contents));
    let file = to.join(other).join("htpasswd");
    fs::write(&file, "andrew:$2y$04$other\n").expect("damaging the backup");
    let damaged =
        backup::restore(&config, &to, true, &by(now)).await.expect_err("a damaged backup");
    assert!(matches!(damaged, Error::Damaged(_)), "{damaged}");

    stack.start_auth().await;
    assert!(signs_in(&stack, "andrew").await);
    assert!(!stack.root().join("htpasswd.before-restore-1").exists());
}

#[tokio::test]
async fn a_backup_that_cannot_be_made_leaves_the_one_before() {
    let mut stack = Stack::start().await;
    stack.grant("andrew", "app:push").await;
    let (config, to) = (config(&stack), stack.root().join("copy"));
    backup::backup(&config, &to, UnixSeconds::new(0)).await.expect("a backup");
    let before = fs::read(to.join("backup.json")).expect("backup.json");
    stack.stop_auth().await;

    // What a backup that was killed leaves.
    fs::create_dir(to.join("files-killed")).expect("a directory");
    let users = fs::read(&config.htpasswd).expect("the users");
    fs::remove_file(&config.htpasswd).expect("losing the users");
    backup::backup(&config, &to, UnixSeconds::new(0)).await.expect_err("there are no users");
    fs::write(&config.htpasswd, users).expect("the users again");
    let lost = stack.root().join("lost.db");
    fs::rename(config.database(), &lost).expect("losing the database");
    let error =
        backup::backup(&config, &to, UnixSeconds::new(0)).await.expect_err("there is no database");
    assert!(matches!(error, Error::NoDatabase(_)), "{error}");
    assert!(!config.database().exists());
    assert_eq!(fs::read(to.join("backup.json")).expect("backup.json"), before);
    backup::check(&config, &to, UnixSeconds::new(0)).await.expect("the backup before is whole");

    fs::rename(&lost, config.database()).expect("the database again");
    backup::backup(&config, &to, UnixSeconds::new(0)).await.expect("a backup");
    assert!(!to.join("files-killed").exists());
}

/// A directory that holds anything else is refused before a file is written or removed.
#[tokio::test]
async fn a_backup_goes_into_no_directory_of_something_else() {
    let stack = Stack::start().await;
    let config = config(&stack);
    let of_others = stack.root().join("of-others");
    fs::create_dir_all(of_others.join("files-mine")).expect("a directory");
    fs::write(of_others.join("files-mine/precious"), "x").expect("a file");
    let names = |directory: &Path| {
        let names = fs::read_dir(directory).expect("a directory");
        let mut names: Vec<_> = names.map(|name| name.expect("a name").file_name()).collect();
        names.sort();
        names
    };
    let alien = stack.root().join("alien");
    fs::create_dir_all(alien.join("files-mine")).expect("a directory");
    fs::write(alien.join("backup.json"), r#"{"version":1}"#).expect("a file");
    for directory in [&of_others, &alien, stack.root(), &config.data] {
        let before = names(directory);
        let error = backup::backup(&config, directory, UnixSeconds::new(0))
            .await
            .expect_err("it is no backup");
        assert!(matches!(error, Error::Foreign(_) | Error::NoBackup(_)), "{error}");
        assert_eq!(names(directory), before);
    }
    assert!(of_others.join("files-mine/precious").exists());
    // The first backup of all, killed.
    let left_over = stack.root().join("left-over");
    fs::create_dir_all(left_over.join("files-killed")).expect("a directory");
    fs::write(left_over.join("lock"), "").expect("a file");
    backup::backup(&config, &left_over, UnixSeconds::new(0)).await.expect("a backup");
    assert!(!left_over.join("files-killed").exists());
}

#[tokio::test]
async fn what_the_backup_does_not_name_is_not_restored() {
    let mut stack = Stack::start().await;
    let (config, to) = (config(&stack), stack.root().join("copy"));
    backup::backup(&config, &to, UnixSeconds::new(0)).await.expect("a backup");
    fs::write(files_of(&to).join("keys/stray.pem"), "no key").expect("a stray file");
    stack.stop_auth().await;
    backup::restore(&config, &to, true, &by(stack.clock.now())).await.expect("a restore");
    assert!(!config.keys().directory.join("stray.pem").exists());
    stack.start_auth().await;
    assert!(signs_in(&stack, "andrew").await);
}

/// It would act with the rights of whoever changes a grant.
#[tokio::test]
async fn a_database_with_a_planted_trigger_is_not_restored() {
    let mut stack = Stack::start().await;
    stack.grant("andrew", "app:push").await;
    let (config, to) = (config(&stack), stack.root().join("copy"));
    backup::backup(&config, &to, UnixSeconds::new(0)).await.expect("a backup");
    let database = files_of(&to).join("auth.db");
    let plant = "CREATE TRIGGER planted AFTER INSERT ON grants BEGIN DELETE FROM grants; END";
    let mut connection = SqliteConnectOptions::new().filename(&database).connect().await.unwrap();
    connection.execute(plant).await.expect("a trigger");
    connection.close().await.expect("closing");
    let digest = digest_of(&fs::read(&database).expect("the database"));
    // Whoever can plant it can write the hash as well.
    rewrite_contents(&to, |contents| contents["files"]["auth.db"] = digest.as_str().into());
    stack.stop_auth().await;
    let now = stack.clock.now();
    let refused = backup::restore(&config, &to, true, &by(now)).await.expect_err("a trigger");
    assert!(matches!(refused, Error::ForeignSchema { .. }), "{refused}");
    let told = refused.to_string();
    assert!(told.contains("trigger \"planted\"") && told.contains("auth.db"), "{told}");
    stack.start_auth().await;
    let token = stack.token("andrew", &["repository:app:push"]).await;
    assert!(may_push(&stack, &token).await);
}

#[tokio::test]
async fn a_restore_that_cannot_write_the_users_leaves_everything() {
    let mut stack = Stack::start().await;
    stack.grant("andrew", "app:push").await;
    let (config, to) = (config(&stack), stack.root().join("copy"));
    backup::backup(&config, &to, UnixSeconds::new(0)).await.expect("a backup");
    stack.stop_auth().await;
    // A place where nobody can make a file, root included.
    let elsewhere = Config { htpasswd: "/proc/htpasswd".into(), ..config.clone() };
    let now = stack.clock.now();
    backup::restore(&elsewhere, &to, true, &by(now)).await.expect_err("no place for the users");
    let names = fs::read_dir(&config.data).expect("the data");
    let mut names = names.map(|name| name.expect("a name").file_name());
    assert!(!names.any(|name| name.to_string_lossy().contains("restore")));
    stack.start_auth().await;
    assert!(signs_in(&stack, "andrew").await);
    let token = stack.token("andrew", &["repository:app:push"]).await;
    assert!(may_push(&stack, &token).await);
}

#[tokio::test]
async fn a_clock_that_went_back_does_not_save_a_token() {
    let mut stack = Stack::start().await;
    stack.grant("andrew", "app:push").await;
    let (config, to) = (config(&stack), stack.root().join("copy"));
    backup::backup(&config, &to, UnixSeconds::new(0)).await.expect("a backup");
    for name in ["one", "two", "three", "four"] {
        stack.grant("andrew", &format!("{name}:push")).await;
        revoke(&stack, "andrew", &format!("{name}:push")).await;
    }
    let before = stack.token("andrew", &["repository:app:push"]).await;
    stack.stop_auth().await;
    // As on a board without a battery, whose clock starts at 1970.
    backup::restore(&config, &to, true, &by(UnixSeconds::new(1))).await.expect("a restore");
    stack.start_auth().await;
    becomes_void(&stack, &before).await;
    let after = stack.token("andrew", &["repository:app:push"]).await;
    assert!(may_push(&stack, &after).await);
}
