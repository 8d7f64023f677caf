//! Who may not read learns nothing: for what exists and what does not, the bytes are the same.

use harness::{
    Response, Stack,
    client::Call,
    image::{Image, digest_of, push_blob, start_upload},
    stack::PASSWORD,
    upload::content,
};

/// Everything of an answer but what names this one request.
fn comparable(answer: &Response) -> String {
    let mut headers = answer.headers.clone();
    headers.remove("date");
    headers.remove("x-request-id");
    format!("{} {headers:?} {:?}", answer.status, answer.body)
}

/// A stack in which `secret` holds an image under `v1` and an upload session; gives the session's
/// location and the image.
async fn with_secret() -> (Stack, String, Image) {
    let stack = Stack::start().await;
    let owner = stack.forged_token("owner", &["repository:secret:*"]);
    let image = Image::new("secret");
    image.push(&stack.client, &owner, "secret", "v1").await;
    let location = start_upload(&stack.client, &owner, "secret").await;
    (stack, location, image)
}

#[tokio::test]
async fn who_may_not_sees_no_difference_between_what_is_there_and_what_is_not() {
    let (stack, location, image) = with_secret().await;
    let (blob, no_blob) = (digest_of(&image.layer), digest_of(b"nothing"));
    let id = location.rsplit_once('/').expect("an id").1;
    let no_id = "0".repeat(id.len());
    let pairs = [
        ("tags/list".to_owned(), "tags/list".to_owned()),
        (format!("blobs/{blob}"), format!("blobs/{no_blob}")),
        ("manifests/v1".to_owned(), "manifests/v2".to_owned()),
        (format!("manifests/{}", image.digest()), format!("manifests/{no_blob}")),
        (format!("referrers/{}", image.digest()), format!("referrers/{no_blob}")),
        (format!("blobs/uploads/{id}"), format!("blobs/uploads/{no_id}")),
        ("blobs/uploads/".to_owned(), "blobs/uploads/".to_owned()),
        (format!("blobs/uploads/?mount={blob}"), format!("blobs/uploads/?mount={no_blob}")),
    ];
    let tokens = [
        None,
        Some(stack.forged_token("", &["repository:public:pull"])),
        Some(stack.forged_token("andrew", &[])),
        Some(stack.forged_token("andrew", &["repository:public:*", "registry:catalog:*"])),
        Some("nonsense".to_owned()),
    ];
    let ask = |method: &str, name: &str, path: &str, token: Option<&String>| {
        let call = stack.client.call(method, format!("/v2/{name}/{path}"));
        let call = token.map_or(call.clone(), |token| call.bearer(token));
        async move { call.send().await }
    };
    for token in &tokens {
        for (there, not_there) in &pairs {
            for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] {
                let first = ask(method, "secret", there, token.as_ref()).await;
                assert!([401, 405].contains(&first.status.as_u16()), "{first:?}");
                let expected = comparable(&first);
                let second = ask(method, "secret", not_there, token.as_ref()).await;
                assert_eq!(comparable(&second), expected, "{method} {not_there}");
                // Another name of the same length, so that only the name differs.
                let third = ask(method, "absent", there, token.as_ref()).await;
                let third = comparable(&third).replace("absent", "secret");
                assert_eq!(third, expected, "{method} {there}");
            }
        }
    }
}

#[tokio::test]
async fn who_may_read_here_learns_nothing_of_elsewhere() {
    let (stack, _, image) = with_secret().await;
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
            answers.push(comparable(&call.send().await));
        }
        assert_eq!(answers[0], answers[1], "{method} {path}");
    }
}

#[tokio::test]
async fn a_mount_tells_nothing_of_what_may_not_be_pulled() {
    let (stack, _, image) = with_secret().await;
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
        answers.push(comparable(&answer).replace(&id, "ID"));
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:#?}");
}

#[tokio::test]
async fn the_token_endpoint_does_not_know_what_the_registry_holds() {
    let (stack, _, _) = with_secret().await;
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
    assert_eq!(comparable(&known), comparable(&unknown));
}

#[tokio::test]
async fn no_spelling_of_a_path_goes_around_the_check() {
    let (stack, _, image) = with_secret().await;
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
        for token in [Some(&token), None] {
            let mut raw = harness::Raw::connect(&stack.client).await;
            let bearer = token.map(|token| format!("Bearer {token}"));
            let headers: Vec<_> =
                bearer.iter().map(|value| ("Authorization", value.as_str())).collect();
            raw.head(&format!("GET {path}"), &headers).await;
            let status = raw.unchecked_answer(false).await.status.as_u16();
            assert!([400, 401, 404].contains(&status), "{path}: {status}");
        }
    }
}
