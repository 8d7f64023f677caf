//! `authctl backup` and `restore`: what auth-server knows comes back, and what was revoked stays so.

use std::fs;

use auth_server::{
    backup::{self, Error},
    config::Config,
};
use harness::{Stack, eventually, stack::PASSWORD};

use crate::revocation::revoke;

fn config(stack: &Stack) -> Config {
    Config::load(&stack.root().join("auth.toml")).expect("the settings")
}

async fn signs_in(stack: &Stack, user: &str) -> bool {
    let call = stack.client.call("GET", "/token?service=berth").basic(user, PASSWORD);
    call.send().await.status == 200
}

#[tokio::test]
async fn what_was_lost_is_there_again() {
    let mut stack = Stack::start().await;
    stack.set_password("bea", PASSWORD);
    stack.grant("bea", "app:push").await;
    let (config, to) = (config(&stack), stack.root().join("copy"));
    // While the server runs, and twice: the second takes the place of the first.
    backup::backup(&config, &to, 0).await.expect("a backup");
    backup::backup(&config, &to, 0).await.expect("a backup");
    assert_eq!(fs::read_dir(&to).expect("the backup").count(), 2);

    stack.stop_auth().await;
    fs::remove_dir_all(stack.root().join("auth")).expect("losing the data");
    fs::remove_file(stack.root().join("htpasswd")).expect("losing the users");
    backup::restore(&config, &to, false, stack.clock.now()).await.expect("a restore");
    stack.start_auth().await;
    assert!(signs_in(&stack, "bea").await);
    let token = stack.token("bea", &["repository:app:pull,push"]).await;
    stack.client.call("POST", "/v2/app/blobs/uploads/").bearer(&token).send().await.expect(202);
}

#[tokio::test]
async fn tokens_from_before_a_restore_are_void_and_revoking_works_after_it() {
    let mut stack = Stack::start().await;
    stack.grant("andrew", "app:push").await;
    let (config, to) = (config(&stack), stack.root().join("copy"));
    backup::backup(&config, &to, 0).await.expect("a backup");
    // What the backup does not know: the sequence moves on, and a token is issued after that.
    stack.grant("andrew", "other:push").await;
    revoke(&stack, "andrew", "other:push").await;
    let before = stack.token("andrew", &["repository:app:push"]).await;
    let upload = |token: &str| stack.client.call("POST", "/v2/app/blobs/uploads/").bearer(token);
    upload(&before).send().await.expect(202);

    stack.stop_auth().await;
    backup::restore(&config, &to, true, stack.clock.now()).await.expect("a restore");
    stack.start_auth().await;
    let upload = |token: &str| stack.client.call("POST", "/v2/app/blobs/uploads/").bearer(token);
    let is_void = async || (upload(&before).send().await.status == 401).then_some(());
    eventually("the token from before is void", is_void).await;
    let after = stack.token("andrew", &["repository:app:push"]).await;
    upload(&after).send().await.expect(202);
    revoke(&stack, "andrew", "app:push").await;
    let is_void = async || (upload(&after).send().await.status == 401).then_some(());
    eventually("the token from after it is void too", is_void).await;
}

#[tokio::test]
async fn nothing_changes_when_a_restore_is_refused() {
    let mut stack = Stack::start().await;
    let (config, to) = (config(&stack), stack.root().join("copy"));
    let contents = backup::backup(&config, &to, 0).await.expect("a backup");
    let now = stack.clock.now();

    let running = backup::restore(&config, &to, true, now).await.expect_err("the server runs");
    assert!(matches!(running, Error::Locked(_)), "{running}");
    stack.stop_auth().await;
    let there = backup::restore(&config, &to, false, now).await.expect_err("there is data");
    assert!(matches!(there, Error::Exists(_)), "{there}");
    let nothing = backup::restore(&config, stack.root(), true, now).await.expect_err("no backup");
    assert!(matches!(nothing, Error::NoBackup(_)), "{nothing}");
    let file = to.join(&contents.directory).join("htpasswd");
    fs::write(&file, "andrew:$2y$04$other\n").expect("damaging the backup");
    let damaged = backup::restore(&config, &to, true, now).await.expect_err("a damaged backup");
    assert!(matches!(damaged, Error::Damaged(_)), "{damaged}");

    stack.start_auth().await;
    assert!(signs_in(&stack, "andrew").await);
    assert!(!stack.root().join("htpasswd.before-restore-1").exists());
}
