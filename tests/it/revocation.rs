//! Taking a right away voids live tokens within seconds; granting never does; and what is known
//! goes on while auth-server is down.

use std::{fs, time::Duration};

use auth_server::database::counters::{KEPT_SECS, MARK_INTERVAL};
use berth_shared::subject::{Grantee, Subject};
use harness::{
    Stack, eventually,
    image::{Image, digest_of, start_upload},
    stack::{Options, PASSWORD, read_rule},
    upload::{commit, patch},
    within,
};

const SCOPE: &str = "repository:app:pull,push";

/// A stack with an image in `app`, and tokens of `andrew` and `bea`, who may push there.
async fn with_tokens() -> (Stack, String, String) {
    let stack = Stack::start().await;
    stack.set_password("bea", PASSWORD);
    stack.grant("andrew", "app:push").await;
    stack.grant("bea", "app:push").await;
    let andrew = stack.token("andrew", &[SCOPE]).await;
    let bea = stack.token("bea", &[SCOPE]).await;
    Image::new("one").push(&stack.client, &andrew, "app", "v1").await;
    assert!(works(&stack, &bea).await);
    (stack, andrew, bea)
}

async fn works(stack: &Stack, token: &str) -> bool {
    let answer = stack.client.get(token, "/v2/app/manifests/v1").await;
    let status = answer.status.as_u16();
    if status == 401 {
        assert!(answer.header("www-authenticate").ends_with("error=\"invalid_token\""));
    }
    assert!([200, 401].contains(&status), "{answer:?}");
    status == 200
}

async fn is_voided(stack: &Stack, token: &str) {
    eventually("the token is void", async || (!works(stack, token).await).then_some(())).await;
}

pub(crate) async fn revoke(stack: &Stack, subject: &str, rule: &str) {
    let rule = read_rule(subject, rule);
    let store = stack.auth_database().await;
    let taken = store
        .take_actions(&rule.grantee, &rule.pattern, rule.effect, rule.actions)
        .await
        .expect("revoking");
    assert!(!taken.is_empty());
}

/// Writes the htpasswd file as an editor does, with these users.
fn write_users(stack: &Stack, users: &[(&str, &str)]) {
    let line = |(user, password): &(&str, &str)| {
        format!("{user}:{}\n", bcrypt::hash(password, 4).expect("a hash"))
    };
    let text: String = users.iter().map(line).collect();
    fs::write(stack.root().join("htpasswd"), text).expect("writing");
}

/// Replaces the line of `user` alone.
fn edit_user(stack: &Stack, user: &str, line: &str) {
    let path = stack.root().join("htpasswd");
    let text = fs::read_to_string(&path).expect("the file");
    let others = text.lines().filter(|it| !it.starts_with(&format!("{user}:")));
    let text: String = others.chain([line]).map(|line| format!("{line}\n")).collect();
    fs::write(path, text).expect("writing");
}

#[tokio::test]
async fn revoking_voids_live_tokens_of_that_subject() {
    let (stack, andrew, bea) = with_tokens().await;
    revoke(&stack, "andrew", "app:push").await;
    is_voided(&stack, &andrew).await;
    assert!(works(&stack, &bea).await);
    stack.grant("andrew", "app:pull").await;
    let again = stack.token("andrew", &[SCOPE]).await;
    assert!(works(&stack, &again).await);
    assert!(!works(&stack, &andrew).await);
    let answer = stack.client.call("POST", "/v2/app/blobs/uploads/").bearer(&again).send().await;
    let answer = answer.expect(401);
    assert!(answer.header("www-authenticate").ends_with("error=\"insufficient_scope\""));
}

#[tokio::test]
async fn revoking_from_everyone_voids_the_tokens_of_all() {
    let (stack, andrew, bea) = with_tokens().await;
    stack.grant("everyone", "other:pull").await;
    revoke(&stack, "everyone", "other:pull").await;
    is_voided(&stack, &andrew).await;
    is_voided(&stack, &bea).await;
    assert!(works(&stack, &stack.token("bea", &[SCOPE]).await).await);
}

/// Machines that are made for one build each would make the table grow for ever.
#[tokio::test]
async fn a_counter_goes_when_no_token_needs_it_and_no_void_token_comes_back() {
    let auth = format!("token_life_secs = {}", 24 * 60 * 60);
    let stack = Stack::with(Options { auth, ..Options::default() }).await;
    stack.grant("andrew", "app:push").await;
    let andrew = stack.token("andrew", &[SCOPE]).await;
    Image::new("one").push(&stack.client, &andrew, "app", "v1").await;
    let counters = async || {
        let policy = stack.auth_database().await.policy().await.expect("the policy");
        policy.revocations.counters.len()
    };
    revoke(&stack, "andrew", "app:push").await;
    let week = u32::try_from(KEPT_SECS).expect("seconds") / 3600;
    let clear = async || stack.auth.clear_counters().await.expect("clearing");
    // The server runs for two weeks, in which the clock stands still: the token is in its life.
    for _ in 0..2 * week {
        assert_eq!(clear().await, 0);
    }
    is_voided(&stack, &andrew).await;
    stack.clock.advance(MARK_INTERVAL * week - MARK_INTERVAL);
    assert_eq!((clear().await, counters().await), (0, 1));
    stack.clock.advance(MARK_INTERVAL);
    assert_eq!((clear().await, counters().await), (1, 0));
    // The registry learns of it, and of the next one.
    stack.grant("andrew", "app:push").await;
    let again = stack.token("andrew", &[SCOPE]).await;
    assert!(works(&stack, &again).await && !works(&stack, &andrew).await);
    revoke(&stack, "andrew", "app:push").await;
    is_voided(&stack, &again).await;
    assert!(!works(&stack, &andrew).await);
}

/// What is revoked must arrive, however much was revoked before.
#[tokio::test]
async fn a_large_table_of_counters_still_arrives() {
    let (stack, andrew, bea) = with_tokens().await;
    // Some 5 MB, for which no token was ever out.
    let name = |n: u32| format!("{n:0>64}").parse().expect("a user");
    let members: Vec<Subject> = (0..70_000).map(|n| Subject::User(name(n))).collect();
    let store = stack.auth_database().await;
    let group = "many".parse().expect("a group");
    store.join_group(&group, &members).await.expect("joining");
    store.void_tokens(&Grantee::Group(group)).await.expect("voiding");
    revoke(&stack, "andrew", "app:push").await;
    let is_void = async || (!works(&stack, &andrew).await).then_some(());
    within(Duration::from_secs(60), "the token is void", is_void).await;
    assert!(works(&stack, &bea).await);
}

#[tokio::test]
async fn granting_voids_nothing() {
    let (stack, andrew, bea) = with_tokens().await;
    stack.grant("andrew", "other:*").await;
    stack.grant("everyone", "**:pull").await;
    // When this has arrived, what was done before has too.
    revoke(&stack, "bea", "app:push").await;
    is_voided(&stack, &bea).await;
    assert!(works(&stack, &andrew).await);
}

#[tokio::test]
async fn a_new_password_voids_the_old_tokens() {
    let (stack, andrew, bea) = with_tokens().await;
    stack.set_password("andrew", "another");
    is_voided(&stack, &andrew).await;
    assert!(works(&stack, &bea).await);
    let old = stack.client.call("GET", "/token").basic("andrew", PASSWORD).send().await;
    old.expect(401);
    let new = stack.client.call("GET", format!("/token?scope={SCOPE}")).basic("andrew", "another");
    let new = new.send().await.expect(200).json()["token"].as_str().expect("a token").to_owned();
    assert!(works(&stack, &new).await);
}

#[tokio::test]
async fn a_password_changed_by_hand_voids_the_old_tokens() {
    let (stack, andrew, bea) = with_tokens().await;
    let hash = bcrypt::hash("by hand", 4).expect("a hash");
    edit_user(&stack, "andrew", &format!("andrew:{hash}"));
    is_voided(&stack, &andrew).await;
    assert!(works(&stack, &bea).await);
}

#[tokio::test]
async fn a_removed_user_has_no_tokens() {
    let (stack, andrew, bea) = with_tokens().await;
    edit_user(&stack, "andrew", "# andrew has left");
    is_voided(&stack, &andrew).await;
    assert!(works(&stack, &bea).await);
    stack.client.call("GET", "/token").basic("andrew", PASSWORD).send().await.expect(401);
    stack.set_password("andrew", PASSWORD);
    let back = stack.token("andrew", &[SCOPE]).await;
    assert!(works(&stack, &back).await);
    assert!(!works(&stack, &andrew).await, "who is back begins anew");
}

#[tokio::test]
async fn revoking_from_anonymous_voids_the_tokens_of_all_since_all_had_the_right() {
    let (stack, andrew, _) = with_tokens().await;
    stack.grant("anonymous", "app:pull").await;
    let anonymous = stack.token("", &["repository:app:pull"]).await;
    assert!(works(&stack, &anonymous).await);
    revoke(&stack, "anonymous", "app:pull").await;
    is_voided(&stack, &anonymous).await;
    is_voided(&stack, &andrew).await;
    assert!(works(&stack, &stack.token("andrew", &[SCOPE]).await).await);
}

#[tokio::test]
async fn what_was_edited_while_auth_server_was_down_counts_when_it_is_back() {
    let (mut stack, andrew, bea) = with_tokens().await;
    stack.stop_auth().await;
    write_users(&stack, &[("bea", "new"), ("carl", PASSWORD)]);
    assert!(works(&stack, &andrew).await && works(&stack, &bea).await);
    stack.start_auth().await;
    is_voided(&stack, &andrew).await;
    is_voided(&stack, &bea).await;
}

#[tokio::test]
async fn an_empty_or_missing_file_changes_nothing() {
    let (stack, andrew, bea) = with_tokens().await;
    let path = stack.root().join("htpasswd");
    let text = fs::read(&path).expect("the file");
    for damage in [Some(&b""[..]), Some(&text[..text.len() - 20]), None] {
        match damage {
            Some(bytes) => fs::write(&path, bytes).expect("writing"),
            None => fs::remove_file(&path).expect("removing"),
        }
        let answer = stack.client.call("GET", "/token").basic("andrew", PASSWORD).send().await;
        answer.expect(200);
    }
    fs::write(&path, &text).expect("writing");
    // When this has arrived, what was done before has too.
    revoke(&stack, "bea", "app:push").await;
    is_voided(&stack, &bea).await;
    assert!(works(&stack, &andrew).await);
}

#[tokio::test]
async fn pulls_go_on_while_auth_server_is_down_also_after_a_restart() {
    let (mut stack, andrew, _) = with_tokens().await;
    let unseen = stack.token("bea", &[SCOPE]).await;
    stack.stop_auth().await;
    assert!(works(&stack, &andrew).await);
    assert!(works(&stack, &unseen).await, "a token that was not seen before");
    stack.stop_registry().await;
    stack.start_registry().await;
    assert!(works(&stack, &andrew).await);
    assert!(works(&stack, &unseen).await);
    Image::new("two").push(&stack.client, &andrew, "app", "v2").await;
    stack.client.call("GET", "/v2/").bearer("x").send().await.expect(401);
}

#[tokio::test]
async fn what_was_revoked_stays_so_after_a_restart_without_auth_server() {
    let (mut stack, andrew, _) = with_tokens().await;
    revoke(&stack, "andrew", "app:push").await;
    is_voided(&stack, &andrew).await;
    // The table is on the disk a moment after it is in force.
    let kept = stack.root().join("registry/revocations.json");
    eventually("the table is kept", async || {
        fs::read_to_string(&kept).is_ok_and(|text| text.contains("andrew")).then_some(())
    })
    .await;
    stack.stop_auth().await;
    stack.stop_registry().await;
    stack.start_registry().await;
    assert!(!works(&stack, &andrew).await);
}

#[tokio::test]
async fn a_token_that_expired_goes_on_for_the_session_that_it_began() {
    let (stack, andrew, bea) = with_tokens().await;
    let client = &stack.client;
    let location = start_upload(client, &andrew, "app").await;
    let of_bea = start_upload(client, &bea, "app").await;
    stack.clock.advance(Duration::from_secs(1000));
    let later = stack.token("andrew", &[SCOPE]).await;
    let later = start_upload(client, &later, "app").await;
    assert!(!works(&stack, &andrew).await, "expired");
    client.call("POST", "/v2/app/blobs/uploads/").bearer(&andrew).send().await.expect(401);
    for other in [&of_bea, &later, &format!("/v2/app/blobs/uploads/{}", "0".repeat(32))] {
        let answer = patch(client, &andrew, other, None, "x").await.expect(401);
        assert!(answer.header("www-authenticate").ends_with("error=\"invalid_token\""));
    }
    patch(client, &andrew, &location, None, "some").await.expect(202);
    client.get(&andrew, &location).await.expect(204);
    commit(client, &andrew, &location, &digest_of(b"something"), "thing").await.expect(201);
}

#[tokio::test]
async fn a_token_that_expired_goes_on_in_the_repository_of_its_session_alone() {
    let (stack, ..) = with_tokens().await;
    stack.grant("andrew", "other:push").await;
    let both = stack.token("andrew", &[SCOPE, "repository:other:pull,push"]).await;
    let location = start_upload(&stack.client, &both, "app").await;
    stack.clock.advance(Duration::from_secs(1000));
    let elsewhere = location.replace("/v2/app/", "/v2/other/");
    assert_ne!(elsewhere, location);
    stack.client.get(&both, &elsewhere).await.expect(401);
    commit(&stack.client, &both, &elsewhere, &digest_of(b"some"), "some").await.expect(401);
    patch(&stack.client, &both, &location, None, "some").await.expect(202);
}

#[tokio::test]
async fn a_revoked_subject_cannot_go_on_with_a_session() {
    let (stack, andrew, _) = with_tokens().await;
    let location = start_upload(&stack.client, &andrew, "app").await;
    patch(&stack.client, &andrew, &location, None, "some").await.expect(202);
    stack.clock.advance(Duration::from_secs(1000));
    revoke(&stack, "andrew", "app:push").await;
    eventually("the session refuses", async || {
        let answer = stack.client.get(&andrew, &location).await;
        (answer.status == 401).then_some(())
    })
    .await;
    patch(&stack.client, &andrew, &location, None, "x").await.expect(401);
    commit(&stack.client, &andrew, &location, &digest_of(b"some"), "").await.expect(401);
}

#[tokio::test]
async fn a_session_keeps_its_grant_for_a_day_at_most() {
    let limits = "upload_idle_secs_max = 1000000".to_owned();
    let stack = Stack::with(Options { registry_limits: limits, ..Options::default() }).await;
    stack.grant("andrew", "app:push").await;
    let token = stack.token("andrew", &[SCOPE]).await;
    let location = start_upload(&stack.client, &token, "app").await;
    stack.clock.advance(Duration::from_secs(24 * 60 * 60));
    patch(&stack.client, &token, &location, None, "some").await.expect(202);
    stack.clock.advance(Duration::from_secs(1));
    patch(&stack.client, &token, &location, None, "thing").await.expect(401);
    let token = stack.token("andrew", &[SCOPE]).await;
    patch(&stack.client, &token, &location, None, "thing").await.expect(202);
}

#[tokio::test]
async fn a_session_that_idles_for_a_day_is_forgotten() {
    let (stack, andrew, _) = with_tokens().await;
    let location = start_upload(&stack.client, &andrew, "app").await;
    stack.clock.advance(Duration::from_secs(24 * 60 * 60 + 1));
    let token = stack.token("andrew", &[SCOPE]).await;
    let answer = stack.client.get(&token, &location).await;
    answer.expect_error(404, "BLOB_UPLOAD_UNKNOWN");
}

#[tokio::test]
async fn before_auth_server_was_ever_there_nobody_gets_in_and_pings_are_challenged() {
    let (mut stack, andrew, _) = with_tokens().await;
    stack.stop_auth().await;
    stack.stop_registry().await;
    for file in ["keys.json", "revocations.json"] {
        fs::remove_file(stack.root().join("registry").join(file)).expect("removing");
    }
    stack.start_registry_unready().await;
    stack.client.call("GET", "/healthz").send().await.expect(200);
    stack.client.call("GET", "/readyz").send().await.expect(503);
    let answer = stack.client.get(&andrew, "/v2/app/manifests/v1").await;
    assert_eq!(answer.expect_error(503, "UNAVAILABLE").header("retry-after"), "2");
    stack.client.call("GET", "/v2/").send().await.expect(401);
    stack.start_auth().await;
    stack.wait_until_ready().await;
    assert!(works(&stack, &andrew).await);
}

#[tokio::test]
async fn new_signing_keys_are_fetched_and_old_tokens_are_void() {
    let (mut stack, andrew, _) = with_tokens().await;
    stack.stop_auth().await;
    fs::remove_dir_all(stack.root().join("auth/keys")).expect("removing");
    assert!(works(&stack, &andrew).await);
    stack.start_auth().await;
    let new = stack.token("andrew", &[SCOPE]).await;
    eventually("the new keys are known", async || works(&stack, &new).await.then_some(())).await;
    stack.stop_registry().await;
    stack.start_registry().await;
    assert!(works(&stack, &new).await);
    assert!(!works(&stack, &andrew).await);
}
