//! `Basic` on the API itself, as `curl -u` sends it: what it opens, and that it opens nothing more.

use harness::{
    Response, Stack,
    client::Call,
    events::Recording,
    eventually,
    image::Image,
    stack::{Options, PASSWORD},
};

use crate::revocation::revoke;

/// A stack with an image in `app`, which `andrew` may push to.
async fn with_image(options: Options) -> Stack {
    let stack = Stack::with(options).await;
    let token = stack.full_token("app").await;
    Image::new("one").push(&stack.client, &token, "app", "v1").await;
    revoke(&stack, "andrew", "app:*").await;
    stack.grant("andrew", "app:push").await;
    stack.set_password("bea", PASSWORD);
    stack
}

fn get(stack: &Stack, path: &str) -> Call {
    stack.client.call("GET", path)
}

async fn pull(stack: &Stack, user: &str, password: &str) -> Response {
    get(stack, "/v2/app/manifests/v1").basic(user, password).send().await
}

#[tokio::test]
async fn right_credentials_open_what_their_token_would() {
    let stack = with_image(Options::default()).await;
    stack.grant("andrew", "other:pull").await;
    let digest = Image::new("one").digest();
    let catalog = format!("/v2/app/blobs/uploads/?mount={digest}&from=other");
    for (method, path, user, status) in [
        ("GET", "/v2/", "andrew", 200),
        ("GET", "/v2/", "bea", 200),
        ("GET", "/v2/app/manifests/v1", "andrew", 200),
        ("GET", "/v2/app/manifests/v1", "bea", 401),
        ("GET", "/v2/app/tags/list", "andrew", 200),
        ("GET", "/v2/_catalog", "andrew", 200),
        ("POST", "/v2/app/blobs/uploads/", "andrew", 202),
        ("POST", catalog.as_str(), "andrew", 202),
        ("POST", "/v2/app/blobs/uploads/", "bea", 401),
        ("DELETE", "/v2/app/manifests/v1", "andrew", 401),
    ] {
        let answer = stack.client.call(method, path).basic(user, PASSWORD).send().await;
        assert_eq!(answer.status.as_u16(), status, "{method} {path} by {user}: {answer:?}");
        if status == 401 {
            let challenge = answer.header("www-authenticate");
            assert!(challenge.starts_with("Bearer realm="), "{challenge}");
            assert!(challenge.ends_with("error=\"insufficient_scope\""), "{challenge}");
        }
    }
    let listed = get(&stack, "/v2/_catalog").basic("bea", PASSWORD).send().await.expect(200);
    assert_eq!(listed.json()["repositories"], serde_json::json!([]));
}

#[tokio::test]
async fn an_upload_goes_on_with_the_same_credentials_and_no_others() {
    let stack = with_image(Options::default()).await;
    stack.grant("bea", "app:push").await;
    let start = stack.client.call("POST", "/v2/app/blobs/uploads/").basic("andrew", PASSWORD);
    let location = start.send().await.expect(202).header("location").to_owned();
    let append = |user: &str| {
        let call = stack.client.call("PATCH", location.clone()).body("half");
        call.basic(user, PASSWORD)
    };
    append("bea").send().await.expect(404);
    append("andrew").send().await.expect(202);
}

#[tokio::test]
async fn wrong_credentials_get_the_challenge_and_never_what_is_public() {
    let stack = with_image(Options::default()).await;
    stack.grant("anonymous", "app:pull").await;
    for (user, password) in [("andrew", "wrong"), ("nobody", PASSWORD), ("", ""), ("robot.ci", "x")]
    {
        let answer = pull(&stack, user, password).await.expect_error(401, "UNAUTHORIZED");
        let challenge = answer.header("www-authenticate");
        assert!(challenge.contains("scope=\"repository:app:pull\""), "{challenge}");
        assert!(!challenge.contains("Basic"), "{challenge}");
        assert_eq!(answer.json()["errors"][0]["message"], "wrong user name or password");
    }
    let call = || get(&stack, "/v2/app/manifests/v1");
    for bad in ["Basic", "Basic !!!", "Basic YW5kcmV3"] {
        call().header("authorization", bad).send().await.expect_error(401, "UNAUTHORIZED");
    }
    let two = call().basic("andrew", PASSWORD).basic("andrew", PASSWORD);
    two.send().await.expect_error(401, "UNAUTHORIZED");
}

#[tokio::test]
async fn it_is_a_setting() {
    let options = Options { registry: "basic = false\n".to_owned(), ..Options::default() };
    let stack = with_image(options).await;
    pull(&stack, "andrew", PASSWORD).await.expect_error(401, "UNAUTHORIZED");
    get(&stack, "/v2/").basic("andrew", PASSWORD).send().await.expect_error(401, "UNAUTHORIZED");
}

#[tokio::test]
async fn an_answer_is_kept_and_a_right_taken_away_counts_all_the_same() {
    let mut stack = with_image(Options::default()).await;
    pull(&stack, "andrew", PASSWORD).await.expect(200);
    stack.stop_auth().await;
    pull(&stack, "andrew", PASSWORD).await.expect(200);
    let other = get(&stack, "/v2/").basic("andrew", PASSWORD).send().await;
    let other = other.expect_error(503, "UNAVAILABLE");
    assert!(other.find_header("retry-after").is_some());
    assert!(other.find_header("www-authenticate").is_none());
    stack.start_auth().await;
    let void = async |what: &str| {
        eventually(what, async || {
            let answer = pull(&stack, "andrew", PASSWORD).await;
            (answer.status.as_u16() == 401).then_some(())
        })
        .await;
    };
    revoke(&stack, "andrew", "app:push").await;
    void("the right is gone").await;
    stack.grant("andrew", "app:pull").await;
    // What voids the token leaves the credentials good, so that a new one is fetched at once.
    eventually("the right is back", async || {
        let answer = pull(&stack, "andrew", PASSWORD).await;
        (answer.status.as_u16() == 200).then_some(())
    })
    .await;
    stack.set_password("andrew", "another");
    void("the password is another").await;
    pull(&stack, "andrew", "another").await.expect(200);
}

#[tokio::test]
async fn voided_tokens_are_replaced_behind_the_clients_back() {
    let stack = with_image(Options::default()).await;
    pull(&stack, "andrew", PASSWORD).await.expect(200);
    let scope = &["repository:app:pull"];
    let token = stack.token("andrew", scope).await;
    let andrew = "andrew".parse().expect("a subject");
    stack.auth_database().await.void_tokens(&andrew).await.expect("voiding");
    eventually("the token is void", async || {
        pull(&stack, "andrew", PASSWORD).await.expect(200);
        let answer = stack.client.get(&token, "/v2/app/manifests/v1").await;
        (answer.status.as_u16() == 401).then_some(())
    })
    .await;
    pull(&stack, "andrew", PASSWORD).await.expect(200);
}

#[tokio::test]
async fn the_log_says_why_credentials_could_not_be_checked() {
    let recording = Recording::start();
    let registry = "service = 'unheard-of'\n".to_owned();
    let mut stack = Stack::with(Options { registry, ..Options::default() }).await;
    let said = async |stack: &Stack, path: &str| {
        let answer = get(stack, path).basic("andrew", PASSWORD).send().await;
        answer.expect_error(503, "UNAVAILABLE");
        eventually("the request is logged", async || {
            let is_it = |text: &String| text.contains(path) && text.contains("status=503");
            recording.take().into_iter().map(|event| event.text).find(is_it)
        })
        .await
    };
    let text = said(&stack, "/v2/unheard-of/tags/list").await;
    let why = "could not be checked: auth-server answered 400 Bad Request: no tokens are issued";
    assert!(text.contains(why), "{text}");
    stack.stop_auth().await;
    let text = said(&stack, "/v2/unheard-of/stopped/tags/list").await;
    assert!(text.contains("could not be checked: connecting to "), "{text}");
}
