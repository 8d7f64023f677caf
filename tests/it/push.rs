//! Uploading blobs: every way of it, and what happens to those that go wrong.

use berth_shared::digest::Algorithm;
use bytes::Bytes;
use harness::{
    Client, Raw, Response, Stack,
    image::{digest_of, push_blob, start_upload},
    upload::{commit, commit_target, content, patch},
};

/// A stack and a token with every right on `app`.
async fn with_token() -> (Stack, String) {
    let stack = Stack::start().await;
    let token = stack.forged_token("andrew", &["repository:app:*"]);
    (stack, token)
}

/// Asserts that the answer created a blob of these bytes in `app`, and that it can be read.
async fn created(client: &Client, token: &str, answer: Response, digest: &str, bytes: &Bytes) {
    let answer = answer.expect(201);
    assert_eq!(answer.header("docker-content-digest"), digest);
    assert_eq!(answer.header("location"), format!("/v2/app/blobs/{digest}"));
    let read = client.get(token, answer.header("location")).await.expect(200);
    assert_eq!(read.body, *bytes);
    assert_eq!(read.header("docker-content-digest"), digest);
}

#[tokio::test]
async fn a_blob_goes_up_in_one_request() {
    let (stack, token) = with_token().await;
    let bytes = content(100_000, 1);
    let answer = push_blob(&stack.client, &token, "app", &bytes).await;
    created(&stack.client, &token, answer, digest_of(&bytes).as_str(), &bytes).await;
}

#[tokio::test]
async fn a_blob_goes_up_by_post_and_put() {
    let (stack, token) = with_token().await;
    let bytes = content(100_000, 2);
    let digest = digest_of(&bytes);
    let location = start_upload(&stack.client, &token, "app").await;
    let answer = commit(&stack.client, &token, &location, &digest, bytes.clone()).await;
    created(&stack.client, &token, answer, digest.as_str(), &bytes).await;
}

#[tokio::test]
async fn a_blob_goes_up_in_one_stream_of_unknown_length() {
    let (stack, token) = with_token().await;
    let bytes = content(1_500_000, 3);
    let digest = digest_of(&bytes);
    let location = start_upload(&stack.client, &token, "app").await;
    let call = stack.client.call("PATCH", &location).bearer(&token).body(bytes.clone());
    let answer = call.streamed().send().await.expect(202);
    assert_eq!(answer.header("range"), "0-1499999");
    assert_eq!(answer.header("location"), location);
    let answer = commit(&stack.client, &token, &location, &digest, "").await;
    created(&stack.client, &token, answer, digest.as_str(), &bytes).await;
}

#[tokio::test]
async fn a_blob_goes_up_in_chunks_and_the_last_may_come_with_put() {
    let (stack, token) = with_token().await;
    for (seed, last_with_put) in [(4, false), (5, true)] {
        let bytes = content(3000, seed);
        let digest = digest_of(&bytes);
        let location = start_upload(&stack.client, &token, "app").await;
        for (range, part, held) in
            [("0-999", 0..1000, "0-999"), ("bytes 1000-1999/*", 1000..2000, "0-1999")]
        {
            let chunk = bytes.slice(part);
            let answer = patch(&stack.client, &token, &location, Some(range), chunk).await;
            assert_eq!(answer.expect(202).header("range"), held);
        }
        let last = bytes.slice(2000..);
        let answer = if last_with_put {
            let target = commit_target(&location, &digest);
            let call = stack.client.call("PUT", target).bearer(&token);
            call.header("content-range", "2000-2999").body(last).send().await
        } else {
            patch(&stack.client, &token, &location, Some("2000-2999"), last).await.expect(202);
            commit(&stack.client, &token, &location, &digest, "").await
        };
        created(&stack.client, &token, answer, digest.as_str(), &bytes).await;
    }
}

#[tokio::test]
async fn sha512_needs_no_hint_and_may_have_one() {
    let (stack, token) = with_token().await;
    for (hint, seed) in [("", 6), ("?digest-algorithm=sha512", 7)] {
        let bytes = content(70_000, seed);
        let digest = Algorithm::Sha512.digest(&bytes);
        let call = stack.client.call("POST", format!("/v2/app/blobs/uploads/{hint}"));
        let location = call.bearer(&token).send().await.expect(202).header("location").to_owned();
        patch(&stack.client, &token, &location, None, bytes.slice(..50_000)).await.expect(202);
        let rest = bytes.slice(50_000..);
        let answer = commit(&stack.client, &token, &location, &digest, rest).await;
        created(&stack.client, &token, answer, digest.as_str(), &bytes).await;
    }
    let bytes = content(10, 8);
    let digest = Algorithm::Sha512.digest(&bytes);
    let call = stack.client.call("POST", format!("/v2/app/blobs/uploads/?digest={digest}"));
    let answer = call.bearer(&token).body(bytes.clone()).send().await;
    created(&stack.client, &token, answer, digest.as_str(), &bytes).await;
    let call = stack.client.call("POST", "/v2/app/blobs/uploads/?digest-algorithm=md5");
    call.bearer(&token).send().await.expect_error(400, "DIGEST_INVALID");
}

#[tokio::test]
async fn a_digest_algorithm_is_a_hint_and_the_digest_decides() {
    let (stack, token) = with_token().await;
    let start = |hint: &str| {
        let call = stack.client.call("POST", format!("/v2/app/blobs/uploads/?{hint}"));
        call.bearer(&token).send()
    };
    for (hint, algorithm, seed) in [
        ("digest-algorithm=sha256", Algorithm::Sha256, 20),
        ("digest-algorithm=sha512", Algorithm::Sha256, 21),
        ("digest-algorithm=sha256", Algorithm::Sha512, 22),
        ("digest-algorithm=sha512&digest-algorithm=sha256", Algorithm::Sha512, 23),
    ] {
        let bytes = content(30_000, seed);
        let digest = algorithm.digest(&bytes);
        let location = start(hint).await.expect(202).header("location").to_owned();
        patch(&stack.client, &token, &location, None, bytes.slice(..20_000)).await.expect(202);
        let rest = bytes.slice(20_000..);
        let answer = commit(&stack.client, &token, &location, &digest, rest).await;
        created(&stack.client, &token, answer, digest.as_str(), &bytes).await;
    }
    for hint in ["digest-algorithm=", "digest-algorithm=SHA256", "digest-algorithm=sha512%00"] {
        start(hint).await.expect_error(400, "DIGEST_INVALID");
    }
}

#[tokio::test]
async fn the_empty_blob_is_a_blob() {
    let (stack, token) = with_token().await;
    let digest = digest_of(b"");
    let location = start_upload(&stack.client, &token, "app").await;
    let answer = commit(&stack.client, &token, &location, &digest, "").await;
    created(&stack.client, &token, answer, digest.as_str(), &Bytes::new()).await;
    let answer = push_blob(&stack.client, &token, "app", &Bytes::new()).await;
    created(&stack.client, &token, answer, digest.as_str(), &Bytes::new()).await;
    let location = start_upload(&stack.client, &token, "app").await;
    patch(&stack.client, &token, &location, None, "").await.expect(202);
    let answer = commit(&stack.client, &token, &location, &digest, "").await;
    created(&stack.client, &token, answer, digest.as_str(), &Bytes::new()).await;
}

#[tokio::test]
async fn a_wrong_digest_is_refused_and_leaves_nothing() {
    let (stack, token) = with_token().await;
    let client = &stack.client;
    let (bytes, claimed) = (content(5000, 9), digest_of(b"something else"));
    let call = client.call("POST", format!("/v2/app/blobs/uploads/?digest={claimed}"));
    let answer = call.bearer(&token).body(bytes.clone()).send().await;
    answer.expect_error(400, "DIGEST_INVALID");
    for received_before in [0, 1, 5000] {
        let location = start_upload(client, &token, "app").await;
        if received_before > 0 {
            let part = bytes.slice(..received_before);
            patch(client, &token, &location, None, part).await.expect(202);
        }
        let rest = bytes.slice(received_before..);
        let answer = commit(client, &token, &location, &claimed, rest).await;
        answer.expect_error(400, "DIGEST_INVALID");
        client.get(&token, &location).await.expect_error(404, "BLOB_UPLOAD_UNKNOWN");
    }
    for digest in [claimed, digest_of(&bytes)] {
        client.head(&token, format!("/v2/app/blobs/{digest}")).await.expect(404);
    }
    assert_eq!(stack.objects(), Vec::<std::path::PathBuf>::new());
}

#[tokio::test]
async fn a_commit_needs_a_digest_that_can_be_read() {
    let (stack, token) = with_token().await;
    let location = start_upload(&stack.client, &token, "app").await;
    for query in ["", "?digest=", "?digest=sha256:abc", "?digest=md5:00", "?digest=../../etc"] {
        let call = stack.client.call("PUT", format!("{location}{query}")).bearer(&token);
        call.send().await.expect_error(400, "DIGEST_INVALID");
    }
    stack.client.get(&token, &location).await.expect(204);
}

#[tokio::test]
async fn a_chunk_out_of_order_gets_416_and_where_to_go_on() {
    let (stack, token) = with_token().await;
    let client = &stack.client;
    let bytes = content(2000, 10);
    let location = start_upload(client, &token, "app").await;
    let check = |answer: Response, range: &str| {
        let answer = answer.expect_error(416, "BLOB_UPLOAD_INVALID");
        assert_eq!(answer.header("range"), range);
        assert_eq!(answer.header("location"), location);
    };
    let early = bytes.slice(1000..);
    check(patch(client, &token, &location, Some("1000-1999"), early.clone()).await, "0-0");
    patch(client, &token, &location, Some("0-999"), bytes.slice(..1000)).await.expect(202);
    check(patch(client, &token, &location, Some("0-999"), bytes.slice(..1000)).await, "0-999");
    check(patch(client, &token, &location, Some("1500-1999"), bytes.slice(1500..)).await, "0-999");
    let put = client.call("PUT", commit_target(&location, &digest_of(&bytes)));
    let put = put.bearer(&token).header("content-range", "1001-2000");
    check(put.body(early.clone()).send().await, "0-999");
    let progress = client.get(&token, &location).await.expect(204);
    assert_eq!(progress.header("range"), "0-999");
    let answer = commit(client, &token, &location, &digest_of(&bytes), early).await;
    created(client, &token, answer, digest_of(&bytes).as_str(), &bytes).await;
}

#[tokio::test]
async fn a_chunk_that_contradicts_its_range_is_refused() {
    let (stack, token) = with_token().await;
    let location = start_upload(&stack.client, &token, "app").await;
    for (range, code) in [
        ("0-9", "SIZE_INVALID"),
        ("0-99999", "SIZE_INVALID"),
        ("9-0", "BLOB_UPLOAD_INVALID"),
        ("nonsense", "BLOB_UPLOAD_INVALID"),
        ("0-18446744073709551615", "BLOB_UPLOAD_INVALID"),
    ] {
        let answer = patch(&stack.client, &token, &location, Some(range), "0123").await;
        let refused = [400, 416].contains(&answer.status.as_u16());
        assert!(refused && (answer.code() == code || range == "9-0"), "{range} {answer:?}");
    }
    let progress = stack.client.get(&token, &location).await.expect(204);
    assert_eq!(progress.header("range"), "0-0");
}

#[tokio::test]
async fn a_session_tells_how_far_it_is() {
    let (stack, token) = with_token().await;
    let location = start_upload(&stack.client, &token, "app").await;
    for (part, range) in [("", "0-0"), ("a", "0-0"), ("bcd", "0-3")] {
        patch(&stack.client, &token, &location, None, part).await.expect(202);
        let progress = stack.client.get(&token, &location).await.expect(204);
        assert_eq!(progress.header("range"), range);
        assert_eq!(progress.header("location"), location);
        assert!(location.ends_with(progress.header("docker-upload-uuid")));
    }
}

#[tokio::test]
async fn a_cancelled_session_is_gone_with_its_bytes() {
    let (stack, token) = with_token().await;
    let location = start_upload(&stack.client, &token, "app").await;
    patch(&stack.client, &token, &location, None, content(1000, 11)).await.expect(202);
    assert_eq!(stack.objects().len(), 1);
    stack.client.delete(&token, &location).await.expect(204);
    assert_eq!(stack.objects().len(), 0);
    stack.client.get(&token, &location).await.expect_error(404, "BLOB_UPLOAD_UNKNOWN");
    stack.client.delete(&token, &location).await.expect_error(404, "BLOB_UPLOAD_UNKNOWN");
}

#[tokio::test]
async fn a_session_of_others_is_unknown() {
    let (stack, token) = with_token().await;
    let scopes = ["repository:app:*", "repository:other:*"];
    let stranger = stack.forged_token("stranger", &scopes);
    let andrew = stack.forged_token("andrew", &scopes);
    let location = start_upload(&stack.client, &token, "app").await;
    patch(&stack.client, &token, &location, None, "mine").await.expect(202);
    let elsewhere = location.replace("/app/", "/other/");
    let random = format!("/v2/app/blobs/uploads/{}", "0".repeat(32));
    let malformed = "/v2/app/blobs/uploads/..%2f..%2fetc".to_owned();
    let digest = digest_of(b"mine");
    for (token, location) in [
        (&stranger, &location),
        (&stranger, &elsewhere),
        (&andrew, &elsewhere),
        (&andrew, &random),
        (&andrew, &malformed),
    ] {
        for method in ["GET", "PATCH", "PUT", "DELETE"] {
            let target = commit_target(location, &digest);
            let answer = stack.client.call(method, target).bearer(token).send().await;
            answer.expect_error(404, "BLOB_UPLOAD_UNKNOWN");
        }
    }
    commit(&stack.client, &token, &location, &digest, "").await.expect(201);
}

#[tokio::test]
async fn blobs_go_up_in_parallel() {
    let (stack, token) = with_token().await;
    let push = |seed| {
        let (client, token) = (stack.client.clone(), token.clone());
        tokio::spawn(async move {
            let bytes = content(200_000, seed);
            push_blob(&client, &token, "app", &bytes).await;
            bytes
        })
    };
    let pushes: Vec<_> = (0..8).map(push).collect();
    for pushed in pushes {
        let bytes = pushed.await.expect("a push");
        let target = format!("/v2/app/blobs/{}", digest_of(&bytes));
        assert_eq!(stack.client.get(&token, target).await.expect(200).body, bytes);
    }
    assert_eq!(stack.objects().len(), 8);
}

#[tokio::test]
async fn the_same_blob_in_parallel_is_kept_once() {
    let (stack, token) = with_token().await;
    let bytes = content(200_000, 1);
    let push = |_| {
        let (client, token, bytes) = (stack.client.clone(), token.clone(), bytes.clone());
        tokio::spawn(async move { push_blob(&client, &token, "app", &bytes).await })
    };
    let pushes: Vec<_> = (0..6).map(push).collect();
    for pushed in pushes {
        pushed.await.expect("a push");
    }
    let target = format!("/v2/app/blobs/{}", digest_of(&bytes));
    assert_eq!(stack.client.get(&token, target).await.expect(200).body, bytes);
    assert_eq!(stack.objects().len(), 1);
}

#[tokio::test]
async fn a_blob_goes_up_over_http2() {
    let (stack, token) = with_token().await;
    let http2 = stack.client_with(&["h2"]);
    let bytes = content(3_000_000, 12);
    let digest = digest_of(&bytes);
    let location = start_upload(&http2, &token, "app").await;
    let call = http2.call("PATCH", &location).bearer(&token).body(bytes.slice(..2_000_000));
    call.streamed().send().await.expect(202);
    let rest = bytes.slice(2_000_000..);
    let answer = commit(&http2, &token, &location, &digest, rest).await;
    created(&http2, &token, answer, digest.as_str(), &bytes).await;
}

#[tokio::test]
async fn a_refused_client_that_is_still_sending_reads_the_refusal() {
    let (stack, token) = with_token().await;
    let bytes = content(4_000_000, 13);
    for alpn in ["http/1.1", "h2"] {
        let client = stack.client_with(&[alpn]);
        let call = client.call("POST", "/v2/app/blobs/uploads/?digest=nonsense");
        let answer = call.body(bytes.clone()).send().await;
        answer.expect_error(401, "UNAUTHORIZED");
        let call = client.call("PATCH", "/v2/app/blobs/uploads/nothing").bearer(&token);
        let answer = call.body(bytes.clone()).streamed().send().await;
        answer.expect_error(404, "BLOB_UPLOAD_UNKNOWN");
    }
}

#[tokio::test]
async fn a_query_may_be_escaped_as_docker_does() {
    let (stack, token) = with_token().await;
    let bytes = content(100, 14);
    let digest = digest_of(&bytes);
    let location = start_upload(&stack.client, &token, "app").await;
    let target = commit_target(&location, &digest).replace(':', "%3A");
    let call = stack.client.call("PUT", target).bearer(&token).body(bytes.clone());
    created(&stack.client, &token, call.send().await, digest.as_str(), &bytes).await;
}

#[tokio::test]
async fn what_was_looked_for_in_vain_is_found_once_it_is_pushed() {
    let (stack, token) = with_token().await;
    let image = harness::image::Image::new("late");
    let targets = [
        format!("/v2/app/blobs/{}", digest_of(&image.layer)),
        format!("/v2/app/manifests/{}", image.digest()),
        "/v2/app/manifests/v1".to_owned(),
    ];
    for target in &targets {
        stack.client.head(&token, target).await.expect(404);
        stack.client.get(&token, target).await.expect(404);
    }
    image.push(&stack.client, &token, "app", "v1").await;
    for target in &targets {
        stack.client.head(&token, target).await.expect(200);
        stack.client.get(&token, target).await.expect(200);
    }
}

/// A client that could not read the answer asks once more (RFC 9110 §9.2.2).
#[tokio::test]
async fn a_commit_that_is_repeated_is_answered_again_while_the_blob_is_there() {
    let (stack, token) = with_token().await;
    let client = &stack.client;
    let bytes = content(3000, 9);
    let digest = digest_of(&bytes);
    let location = start_upload(client, &token, "app").await;
    patch(client, &token, &location, None, bytes.slice(..2000)).await.expect(202);
    let last = bytes.slice(2000..);
    commit(client, &token, &location, &digest, last.clone()).await.expect(201);
    let again = commit(client, &token, &location, &digest, last.clone()).await;
    created(client, &token, again, digest.as_str(), &bytes).await;

    // For that blob, in that repository, alone.
    let other = digest_of(b"other");
    let answer = commit(client, &token, &location, &other, last.clone()).await;
    answer.expect_error(404, "BLOB_UPLOAD_UNKNOWN");
    let elsewhere = stack.forged_token("andrew", &["repository:elsewhere:*"]);
    let there = location.replace("/v2/app/", "/v2/elsewhere/");
    let answer = commit(client, &elsewhere, &there, &digest, last.clone()).await;
    answer.expect_error(404, "BLOB_UPLOAD_UNKNOWN");
    let blob = format!("/v2/app/blobs/{digest}");
    client.call("DELETE", blob).bearer(&token).send().await.expect(202);
    let answer = commit(client, &token, &location, &digest, last).await;
    answer.expect_error(404, "BLOB_UPLOAD_UNKNOWN");
}

/// What was left of a large body was not read, and clients over HTTP/1.1 saw a broken pipe.
#[tokio::test]
async fn a_repeated_commit_is_answered_behind_a_body_of_any_size() {
    let (stack, token) = with_token().await;
    let client = &stack.client;
    let bytes = content(40_000_000, 11);
    let digest = digest_of(&bytes);
    let location = start_upload(client, &token, "app").await;
    commit(client, &token, &location, &digest, bytes.clone()).await.expect(201);
    let target = commit_target(&location, &digest);
    let bearer = format!("Bearer {token}");
    let length = bytes.len().to_string();
    let headers = [("authorization", bearer.as_str()), ("content-length", length.as_str())];
    for _ in 0..3 {
        let mut raw = Raw::connect(client).await;
        raw.head(&format!("PUT {target}"), &headers).await;
        raw.send(&bytes).await;
        raw.answer(&target, false).await.expect(201);
    }
}

#[tokio::test]
async fn a_chunk_whose_range_cannot_be_read_is_told_where_the_session_stands() {
    let (stack, token) = with_token().await;
    let client = &stack.client;
    let bytes = content(2000, 10);
    let digest = digest_of(&bytes);
    let location = start_upload(client, &token, "app").await;
    patch(client, &token, &location, Some("0-999"), bytes.slice(..1000)).await.expect(202);
    for range in ["bytes=1000-1999", "1000-", "-", "1000-x", "bytes 1000"] {
        let chunk = patch(client, &token, &location, Some(range), bytes.slice(1000..)).await;
        let put = client.call("PUT", commit_target(&location, &digest)).bearer(&token);
        let last = put.header("content-range", range).body(bytes.slice(1000..)).send().await;
        for answer in [chunk, last] {
            let answer = answer.expect_error(416, "BLOB_UPLOAD_INVALID");
            assert_eq!(answer.header("range"), "0-999", "{range}");
            assert_eq!(answer.header("location"), location, "{range}");
        }
    }
    let answer = commit(client, &token, &location, &digest, bytes.slice(1000..)).await;
    created(client, &token, answer, digest.as_str(), &bytes).await;
}
