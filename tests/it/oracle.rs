//! Who may not read learns nothing: for what exists and what does not, the bytes are the same.

use harness::{
    Raw, Response, Secret, Stack,
    client::Call,
    image::{digest_of, push_blob},
    stack::PASSWORD,
    upload::content,
};

#[tokio::test]
async fn who_may_not_sees_no_difference_between_what_is_there_and_what_is_not() {
    let secret = Secret::start().await;
    let stack = &secret.stack;
    let ask = |method: &str, name: &str, path: &str, token: Option<&String>| {
        let call = stack.client.call(method, format!("/v2/{name}/{path}"));
        let call = token.map_or(call.clone(), |token| call.bearer(token));
        async move { call.send().await }
    };
    for stranger in secret.strangers() {
        let token = stranger.token.as_ref();
        for (there, not_there) in &secret.pairs() {
            for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] {
                let first = ask(method, "secret", there, token).await;
                assert!([401, 405].contains(&first.status.as_u16()), "{first:?}");
                let expected = first.comparable();
                let second = ask(method, "secret", not_there, token).await;
                assert_eq!(second.comparable(), expected, "{method} {not_there}");
                // Another name of the same length, so that only the name differs.
                let third = ask(method, "absent", there, token).await;
                let third = third.comparable().replace("absent", "secret");
                assert_eq!(third, expected, "{method} {there}");
            }
        }
    }
}

#[tokio::test]
async fn who_may_read_here_learns_nothing_of_elsewhere() {
    let Secret { stack, image, .. } = Secret::start().await;
    let token = stack.forged_token("andrew", &["repository:public:*"]);
    push_blob(&stack.client, &token, "public", &content(10, 1)).await;
    let known = digest_of(&image.layer);
    let unknown = digest_of(b"nothing");
    for (method, path) in [
        ("GET", "blobs/DIGEST"),
        ("HEAD", "blobs/DIGEST"),
        ("DELETE", "blobs/DIGEST"),
        ("GET", "manifests/DIGEST"),
        ("GET", "referrers/DIGEST"),
        ("POST", "blobs/uploads/?digest=DIGEST"),
    ] {
        let mut answers = Vec::new();
        for digest in [&known, &unknown] {
            let path = path.replace("DIGEST", digest.as_str());
            let call = stack.client.call(method, format!("/v2/public/{path}")).bearer(&token);
            answers.push(call.send().await.comparable());
        }
        assert_eq!(answers[0], answers[1], "{method} {path}");
    }
}

#[tokio::test]
async fn a_mount_tells_nothing_of_what_may_not_be_pulled() {
    let Secret { stack, image, .. } = Secret::start().await;
    let token = stack.forged_token("andrew", &["repository:public:pull,push"]);
    let known = digest_of(&image.layer);
    let unknown = digest_of(b"nothing");
    let mut answers = Vec::new();
    for query in [
        format!("mount={known}&from=secret"),
        format!("mount={unknown}&from=secret"),
        format!("mount={known}&from=absent"),
        format!("mount={known}"),
        format!("mount={unknown}"),
    ] {
        let call = stack.client.call("POST", format!("/v2/public/blobs/uploads/?{query}"));
        let answer = call.bearer(&token).send().await.expect(202);
        let id = answer.header("docker-upload-uuid").to_owned();
        answers.push(answer.comparable().replace(&id, "ID"));
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:#?}");
}

#[tokio::test]
async fn the_token_endpoint_does_not_know_what_the_registry_holds() {
    let Secret { stack, .. } = Secret::start().await;
    let ask = |name: &str| -> Call {
        let target = format!("/token?scope=repository:{name}:pull,push");
        stack.client.call("GET", target)
    };
    for name in ["secret", "absent"] {
        for call in [ask(name), ask(name).basic("andrew", PASSWORD)] {
            assert_eq!(call.send().await.expect(200).json()["scope"], "");
        }
    }
    let known = ask("secret").basic("andrew", "wrong").send().await.expect(401);
    let unknown = ask("secret").basic("nobody", "wrong").send().await.expect(401);
    assert_eq!(known.comparable(), unknown.comparable());
}

/// Asks for a path as it is written here, which a client's library might tidy up.
pub(crate) async fn raw_get(stack: &Stack, path: &str, token: Option<&str>) -> Response {
    let mut raw = Raw::connect(&stack.client).await;
    let bearer = token.map(|token| format!("Bearer {token}"));
    let headers: Vec<_> = bearer.iter().map(|value| ("Authorization", value.as_str())).collect();
    raw.head(&format!("GET {path}"), &headers).await;
    raw.unchecked_answer(false).await
}

#[tokio::test]
async fn no_spelling_of_a_path_goes_around_the_check() {
    let Secret { stack, image, .. } = Secret::start().await;
    let token = stack.forged_token("andrew", &["repository:public:*"]);
    let digest = image.digest();
    for path in [
        "/v2//secret/manifests/v1",
        "/v2/./secret/manifests/v1",
        "/v2/public/../secret/manifests/v1",
        "/v2/public/%2e%2e/secret/manifests/v1",
        "/v2/public%2f..%2fsecret/manifests/v1",
        "/v2/secret%2fmanifests/v1",
        "/v2/%73ecret/manifests/v1",
        "/v2/secret/manifests/v1/",
        "/v2/secret;x/manifests/v1",
        "/v2/secret/manifests/v1;x",
        "/V2/secret/manifests/v1",
        "//v2/secret/manifests/v1",
        "/v2/secret/manifests//v1",
        "/v2/_catalog/",
        "/v2/_catalog/../secret/tags/list",
        "/keys",
        "/revocations",
        "/rights?subject=andrew",
        "/token/../revocations",
    ] {
        let path = path.replace("v1", digest.as_str());
        for token in [Some(token.as_str()), None] {
            let status = raw_get(&stack, &path, token).await.status.as_u16();
            assert!([400, 401, 404].contains(&status), "{path}: {status}");
        }
    }
}
