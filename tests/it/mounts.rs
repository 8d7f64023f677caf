//! Mounts: a blob that one may pull elsewhere is linked here, and whatever is missing, the right
//! or the blob, is answered by an ordinary upload.

use bytes::Bytes;
use harness::{
    Response, Stack,
    image::{digest_of, push_blob},
    upload::{commit, content},
};

/// A stack whose repository `source` holds a blob, pushed by somebody else.
async fn with_blob() -> (Stack, Bytes) {
    let stack = Stack::start().await;
    let owner = stack.forged_token("owner", &["repository:source:*"]);
    let bytes = content(1000, 1);
    push_blob(&stack.client, &owner, "source", &bytes).await;
    (stack, bytes)
}

async fn mount(stack: &Stack, token: &str, bytes: &[u8], from: &str) -> Response {
    let digest = digest_of(bytes);
    let target = format!("/v2/target/blobs/uploads/?mount={digest}{from}");
    stack.client.call("POST", target).bearer(token).send().await
}

/// Asserts that the blob has to be uploaded, and that this works.
async fn uploads(stack: &Stack, token: &str, bytes: &Bytes, answer: Response) {
    let location = answer.expect(202).header("location").to_owned();
    let digest = digest_of(bytes);
    let target = format!("/v2/target/blobs/{digest}");
    stack.client.get(token, &target).await.expect_error(404, "BLOB_UNKNOWN");
    commit(&stack.client, token, &location, &digest, bytes.clone()).await.expect(201);
    stack.client.get(token, &target).await.expect(200);
}

async fn is_mounted(stack: &Stack, token: &str, bytes: &Bytes, answer: Response) {
    let digest = digest_of(bytes);
    let answer = answer.expect(201);
    assert_eq!(answer.header("location"), format!("/v2/target/blobs/{digest}"));
    assert_eq!(answer.header("docker-content-digest"), digest.as_str());
    let read = stack.client.get(token, answer.header("location")).await.expect(200);
    assert_eq!(read.body, *bytes);
    assert_eq!(stack.objects().len(), 1, "a mount copies nothing");
}

#[tokio::test]
async fn a_right_in_the_token_mounts() {
    let (stack, bytes) = with_blob().await;
    let scopes = ["repository:target:pull,push", "repository:source:pull"];
    let token = stack.forged_token("andrew", &scopes);
    let answer = mount(&stack, &token, &bytes, "&from=source").await;
    is_mounted(&stack, &token, &bytes, answer).await;
}

#[tokio::test]
async fn a_right_that_the_token_lacks_but_the_subject_has_mounts() {
    let (stack, bytes) = with_blob().await;
    stack.grant("andrew", "source:pull").await;
    let token = stack.forged_token("andrew", &["repository:target:pull,push"]);
    let answer = mount(&stack, &token, &bytes, "&from=source").await;
    is_mounted(&stack, &token, &bytes, answer).await;
}

#[tokio::test]
async fn without_a_source_any_that_may_be_pulled_will_do() {
    let (stack, bytes) = with_blob().await;
    stack.grant("everyone", "source:pull").await;
    let token = stack.forged_token("andrew", &["repository:target:pull,push"]);
    let answer = mount(&stack, &token, &bytes, "").await;
    is_mounted(&stack, &token, &bytes, answer).await;
}

#[tokio::test]
async fn without_the_right_the_blob_is_uploaded() {
    let (stack, bytes) = with_blob().await;
    stack.grant("andrew", "target:push").await;
    let token = stack.forged_token("andrew", &["repository:target:pull,push"]);
    for from in ["&from=source", "", "&from=nowhere"] {
        let answer = mount(&stack, &token, &bytes, from).await.expect(202);
        assert_eq!(answer.header("range"), "0-0");
    }
    let answer = mount(&stack, &token, &bytes, "&from=source").await;
    uploads(&stack, &token, &bytes, answer).await;
}

#[tokio::test]
async fn a_blob_that_the_source_lacks_is_uploaded() {
    let (stack, _) = with_blob().await;
    let scopes = ["repository:target:pull,push", "repository:source:pull"];
    let token = stack.forged_token("andrew", &scopes);
    let missing = content(100, 2);
    let answer = mount(&stack, &token, &missing, "&from=source").await;
    uploads(&stack, &token, &missing, answer).await;
}

#[tokio::test]
async fn a_blob_that_exists_only_elsewhere_cannot_be_read_here() {
    let (stack, bytes) = with_blob().await;
    let token = stack.forged_token("andrew", &["repository:target:*"]);
    push_blob(&stack.client, &token, "target", &Bytes::from("something")).await;
    let target = format!("/v2/target/blobs/{}", digest_of(&bytes));
    for method in ["GET", "HEAD", "DELETE"] {
        stack.client.call(method, &target).bearer(&token).send().await.expect(404);
    }
    // Naming the digest is no proof of having the bytes.
    let target = format!("/v2/target/blobs/uploads/?digest={}", digest_of(&bytes));
    let answer = stack.client.call("POST", target).bearer(&token).send().await;
    answer.expect_error(400, "DIGEST_INVALID");
}

#[tokio::test]
async fn while_auth_server_is_down_only_the_token_counts() {
    let (mut stack, bytes) = with_blob().await;
    stack.grant("andrew", "source:pull").await;
    let short = stack.forged_token("andrew", &["repository:target:pull,push"]);
    let scopes = ["repository:target:pull,push", "repository:source:pull"];
    let long = stack.forged_token("andrew", &scopes);
    stack.stop_auth().await;
    mount(&stack, &short, &bytes, "&from=source").await.expect(202);
    mount(&stack, &short, &bytes, "").await.expect(202);
    let answer = mount(&stack, &long, &bytes, "&from=source").await;
    is_mounted(&stack, &long, &bytes, answer).await;
}

#[tokio::test]
async fn the_challenge_of_a_mount_asks_for_both_repositories_in_one_scope() {
    let (stack, bytes) = with_blob().await;
    let target = format!("/v2/target/blobs/uploads/?mount={}&from=source", digest_of(&bytes));
    let answer = stack.client.call("POST", target).send().await.expect(401);
    assert_eq!(
        answer.header("www-authenticate"),
        "Bearer realm=\"https://reg.test/token\",service=\"berth\",\
         scope=\"repository:target:pull,push repository:source:pull\""
    );
}

/// containerd and jib give a push up that is refused because of its mount.
#[tokio::test]
async fn a_mount_that_cannot_be_understood_is_an_upload() {
    let (stack, bytes) = with_blob().await;
    let token = stack.forged_token("andrew", &["repository:target:pull,push"]);
    let digest = digest_of(&bytes);
    for query in [
        format!("mount={digest}&from="),
        format!("mount={digest}&from=UPPER"),
        format!("mount={digest}&from=a%2f..%2fb"),
        "mount=blake3:abc&from=source".to_owned(),
        "mount=&from=source".to_owned(),
        "mount=".to_owned(),
    ] {
        let target = format!("/v2/target/blobs/uploads/?{query}");
        let answer = stack.client.call("POST", &target).bearer(&token).send().await.expect(202);
        let unknown = stack.client.call("POST", &target).send().await.expect(401);
        assert!(!unknown.header("www-authenticate").contains("from"), "{query}");
        let other = content(1000, 2);
        let location = answer.header("location").to_owned();
        commit(&stack.client, &token, &location, &digest_of(&other), other).await.expect(201);
    }
    // With its bytes it is one all the same.
    let target = format!("/v2/target/blobs/uploads/?mount=x&digest={digest}");
    let whole = stack.client.call("POST", target).bearer(&token).body(bytes).send().await;
    whole.expect(201);
}
