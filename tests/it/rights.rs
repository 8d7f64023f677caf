//! Denies, groups and `${user}`: what tokens hold, and which are void once something is taken away.

use berth_shared::{
    rights::{Effect, Rule},
    subject::{Grantee, GroupName, Subject},
};
use harness::{
    Stack, eventually,
    image::{Image, digest_of},
    stack::{PASSWORD, read_rule},
};

async fn deny(stack: &Stack, subject: &str, rule: &str) {
    let rule = Rule { effect: Effect::Deny, ..read_rule(subject, rule) };
    stack.auth_database().await.add_rules(&[rule], stack.clock.now()).await.expect("denying");
}

fn subject(name: &str) -> Subject {
    Subject::from_claim(name).expect("a subject")
}

fn devs() -> GroupName {
    "devs".parse().expect("a group")
}

async fn granted(stack: &Stack, user: &str, scope: &str) -> String {
    let call = stack.client.call("GET", format!("/token?scope={scope}"));
    let answer = call.basic(user, PASSWORD).send().await.expect(200);
    answer.json()["scope"].as_str().expect("a scope").to_owned()
}

/// The status of a pull of an image that is there.
async fn pull(stack: &Stack, token: &str) -> u16 {
    stack.client.get(token, "/v2/app/manifests/v1").await.status.as_u16()
}

async fn with_image() -> Stack {
    let stack = Stack::start().await;
    stack.set_password("bea", PASSWORD);
    stack.grant("andrew", "**:*").await;
    let token = stack.full_token("app").await;
    Image::new("one").push(&stack.client, &token, "app", "v1").await;
    stack
}

async fn is_voided(stack: &Stack, token: &str) {
    eventually("the token is void", async || (pull(stack, token).await == 401).then_some(())).await;
}

#[tokio::test]
async fn a_deny_wins_over_every_grant_and_voids_what_is_out() {
    let stack = with_image().await;
    let before = stack.token("andrew", &["repository:app:pull,push"]).await;
    assert_eq!(pull(&stack, &before).await, 200);
    deny(&stack, "andrew", "secret/**:push").await;
    is_voided(&stack, &before).await;
    for (scope, expected) in [
        ("repository:secret/app:*", "repository:secret/app:pull,delete"),
        ("repository:secret:pull,push", "repository:secret:pull"),
        ("repository:app:*", "repository:app:pull,push,delete"),
        ("registry:catalog:*", "registry:catalog:*"),
    ] {
        assert_eq!(granted(&stack, "andrew", scope).await, expected, "{scope}");
    }
    deny(&stack, "everyone", "app:pull").await;
    assert_eq!(granted(&stack, "andrew", "repository:app:pull").await, "");
    assert_eq!(granted(&stack, "andrew", "registry:catalog:*").await, "");
}

#[tokio::test]
async fn what_is_denied_is_neither_listed_nor_a_source_of_mounts() {
    let stack = with_image().await;
    let token = stack.token("andrew", &["registry:catalog:*", "repository:other:push"]).await;
    let listed = stack.client.get(&token, "/v2/_catalog").await.expect(200);
    assert_eq!(listed.json()["repositories"], serde_json::json!(["app"]));
    deny(&stack, "andrew", "app:pull").await;
    is_voided(&stack, &token).await;
    let token = stack.token("andrew", &["registry:catalog:*", "repository:other:push"]).await;
    eventually("the deny has arrived", async || {
        let listed = stack.client.get(&token, "/v2/_catalog").await.expect(200);
        (listed.json()["repositories"] == serde_json::json!([])).then_some(())
    })
    .await;
    let digest = digest_of(&Image::new("one").config);
    let mount = format!("/v2/other/blobs/uploads/?mount={digest}&from=app");
    stack.client.call("POST", mount).bearer(&token).send().await.expect(202);
}

#[tokio::test]
async fn a_group_gives_its_members_what_it_holds_until_they_leave() {
    let stack = with_image().await;
    stack.grant("group:devs", "app:pull").await;
    assert_eq!(granted(&stack, "bea", "repository:app:pull").await, "");
    let store = stack.auth_database().await;
    let bea = [subject("bea")];
    assert_eq!(store.join_group(&devs(), &bea).await.expect("joining"), bea);
    let token = stack.token("bea", &["repository:app:pull"]).await;
    assert_eq!(pull(&stack, &token).await, 200);
    assert_eq!(store.leave_group(&devs(), &bea).await.expect("leaving"), bea);
    is_voided(&stack, &token).await;
    assert_eq!(granted(&stack, "bea", "repository:app:pull").await, "");
}

#[tokio::test]
async fn what_a_group_loses_its_members_lose() {
    let stack = with_image().await;
    stack.grant("group:devs", "app:push").await;
    let store = stack.auth_database().await;
    store.join_group(&devs(), &[subject("bea")]).await.expect("joining");
    let scope = &["repository:app:pull"];
    let (andrew, bea) = (stack.token("andrew", scope).await, stack.token("bea", scope).await);
    let rule = read_rule("group:devs", "app:push");
    let taken = store.take_actions(&rule.grantee, &rule.pattern, rule.effect, rule.actions).await;
    assert!(!taken.expect("revoking").is_empty());
    is_voided(&stack, &bea).await;
    assert_eq!(pull(&stack, &andrew).await, 200);
    // Joining takes something away where the group is denied something.
    stack.grant("bea", "app:pull").await;
    store.leave_group(&devs(), &[subject("bea")]).await.expect("leaving");
    deny(&stack, "group:devs", "app:pull").await;
    let bea = stack.token("bea", scope).await;
    assert_eq!(pull(&stack, &bea).await, 200);
    store.join_group(&devs(), &[subject("bea")]).await.expect("joining");
    is_voided(&stack, &bea).await;
}

#[tokio::test]
async fn everybody_is_at_home_below_their_own_name_and_nowhere_else() {
    let stack = Stack::start().await;
    stack.grant("everyone", "home/${user}/**:*").await;
    for (user, scope, expected) in [
        ("andrew", "repository:home/andrew/app:pull,push", "repository:home/andrew/app:pull,push"),
        ("andrew", "repository:home/bea/app:pull", ""),
        ("andrew", "repository:home:pull", ""),
        ("Andrew", "repository:home/andrew/app:pull", ""),
        ("a@b", "repository:home/a/b:pull", ""),
        ("a..b", "repository:home/a:pull", ""),
    ] {
        stack.set_password(user, PASSWORD);
        assert_eq!(granted(&stack, user, scope).await, expected, "{user} {scope}");
    }
}

#[tokio::test]
async fn tokens_can_be_made_void_without_taking_rights_away() {
    let stack = with_image().await;
    let scope = &["repository:app:pull"];
    let token = stack.token("andrew", scope).await;
    let andrew: Grantee = "andrew".parse().expect("a subject");
    stack.auth_database().await.void_tokens(&andrew).await.expect("voiding");
    is_voided(&stack, &token).await;
    assert_eq!(pull(&stack, &stack.token("andrew", scope).await).await, 200);
}
