//! Uploads whose client or server goes away in the middle: what was received stays, and the
//! session goes on from there.

use bytes::Bytes;
use harness::{
    Raw, Stack, eventually,
    image::{Image, MANIFEST, digest_of, start_upload},
    upload::{commit, commit_target, content, patch},
};
use registry_server::jobs::Job;

use crate::collection::run;

/// A stack, a token with every right on `app`, and the location of a new session there.
async fn with_session() -> (Stack, String, String) {
    let stack = Stack::start().await;
    let token = stack.forged_token("andrew", &["repository:app:*"]);
    let location = start_upload(&stack.client, &token, "app").await;
    (stack, token, location)
}

/// Waits until the session holds `range`.
async fn reaches(stack: &Stack, token: &str, location: &str, range: &str) {
    eventually("the session holds what was sent", async || {
        let progress = stack.client.get(token, location).await.expect(204);
        (progress.header("range") == range).then_some(())
    })
    .await;
}

async fn finish(stack: &Stack, token: &str, location: &str, bytes: &Bytes, received: usize) {
    let range = format!("{received}-{}", bytes.len() - 1);
    let rest = bytes.slice(received..);
    patch(&stack.client, token, location, Some(&range), rest).await.expect(202);
    let digest = digest_of(bytes);
    commit(&stack.client, token, location, &digest, "").await.expect(201);
    let target = format!("/v2/app/blobs/{digest}");
    assert_eq!(stack.client.get(token, target).await.expect(200).body, *bytes);
}

#[tokio::test]
async fn a_body_cut_off_leaves_the_session_at_the_last_byte_received() {
    for length in ["content-length: 1048576", "transfer-encoding: chunked"] {
        let (stack, token, location) = with_session().await;
        let bytes = content(1_048_576, 1);
        let mut raw = Raw::connect(&stack.client).await;
        let bearer = format!("Bearer {token}");
        let (name, value) = length.split_once(": ").expect("a header");
        let headers = [("Authorization", bearer.as_str()), (name, value)];
        raw.head(&format!("PATCH {location}"), &headers).await;
        if name == "transfer-encoding" {
            raw.send(format!("{:x}\r\n", 300_000).as_bytes()).await;
        }
        raw.send(&bytes[..300_000]).await;
        raw.leave().await;
        reaches(&stack, &token, &location, "0-299999").await;
        finish(&stack, &token, &location, &bytes, 300_000).await;
    }
}

#[tokio::test]
async fn a_final_put_cut_off_leaves_the_session_too() {
    let (stack, token, location) = with_session().await;
    let bytes = content(1_048_576, 2);
    let mut raw = Raw::connect(&stack.client).await;
    let bearer = format!("Bearer {token}");
    let target = commit_target(&location, &digest_of(&bytes));
    let headers = [("Authorization", bearer.as_str()), ("Content-Length", "1048576")];
    raw.head(&format!("PUT {target}"), &headers).await;
    raw.send(&bytes[..700_000]).await;
    raw.leave().await;
    reaches(&stack, &token, &location, "0-699999").await;
    finish(&stack, &token, &location, &bytes, 700_000).await;
}

#[tokio::test]
async fn a_second_patch_stops_a_half_open_first_and_goes_on_behind_it() {
    let (stack, token, location) = with_session().await;
    let bytes = content(1_048_576, 3);
    let mut half_open = Raw::connect(&stack.client).await;
    let bearer = format!("Bearer {token}");
    let headers = [("Authorization", bearer.as_str()), ("Content-Length", "1048576")];
    half_open.head(&format!("PATCH {location}"), &headers).await;
    half_open.send(&bytes[..600_000]).await;
    // The first batch is on the disk: the request has begun.
    eventually("the first request has begun to write", async || {
        let written = stack.objects().first().and_then(|path| path.metadata().ok());
        written.is_some_and(|meta| meta.len() > 0).then_some(())
    })
    .await;
    let refused = patch(&stack.client, &token, &location, Some("9000000-9000001"), "xx").await;
    let refused = refused.expect_error(416, "BLOB_UPLOAD_INVALID");
    let last: usize = refused.header("range")[2..].parse().expect("the last byte received");
    assert!(last < 600_000);
    finish(&stack, &token, &location, &bytes, last + 1).await;
    let _ = half_open.try_send(&bytes[600_000..]).await;
}

#[tokio::test]
async fn a_client_that_leaves_during_the_commit_has_committed() {
    let (stack, token, location) = with_session().await;
    let bytes = content(500_000, 4);
    let digest = digest_of(&bytes);
    let mut raw = Raw::connect(&stack.client).await;
    let bearer = format!("Bearer {token}");
    let target = commit_target(&location, &digest);
    let headers = [("Authorization", bearer.as_str()), ("Content-Length", "500000")];
    raw.head(&format!("PUT {target}"), &headers).await;
    raw.send(&bytes).await;
    raw.leave().await;
    eventually("the blob is there", async || {
        let head = stack.client.head(&token, format!("/v2/app/blobs/{digest}")).await;
        head.status.is_success().then_some(())
    })
    .await;
    stack.client.get(&token, &location).await.expect_error(404, "BLOB_UPLOAD_UNKNOWN");
}

#[tokio::test]
async fn a_session_goes_on_after_a_restart() {
    let (mut stack, token, location) = with_session().await;
    let bytes = content(100_000, 5);
    patch(&stack.client, &token, &location, None, bytes.slice(..60_000)).await.expect(202);
    stack.stop_registry().await;
    stack.start_registry().await;
    let progress = stack.client.get(&token, &location).await.expect(204);
    assert_eq!(progress.header("range"), "0-59999");
    finish(&stack, &token, &location, &bytes, 60_000).await;
}

#[tokio::test]
async fn a_session_goes_on_while_auth_server_restarts_and_while_it_is_down() {
    let (mut stack, token, location) = with_session().await;
    let bytes = content(100_000, 9);
    patch(&stack.client, &token, &location, None, bytes.slice(..30_000)).await.expect(202);
    stack.stop_auth().await;
    let range = Some("30000-59999");
    patch(&stack.client, &token, &location, range, bytes.slice(30_000..60_000)).await.expect(202);
    stack.start_auth().await;
    finish(&stack, &token, &location, &bytes, 60_000).await;
    // And when both come back in whichever order.
    let location = start_upload(&stack.client, &token, "app").await;
    patch(&stack.client, &token, &location, None, bytes.slice(..30_000)).await.expect(202);
    stack.stop_auth().await;
    stack.stop_registry().await;
    stack.start_registry().await;
    let range = Some("30000-59999");
    patch(&stack.client, &token, &location, range, bytes.slice(30_000..60_000)).await.expect(202);
    stack.start_auth().await;
    finish(&stack, &token, &location, &bytes, 60_000).await;
}

#[tokio::test]
async fn a_client_that_leaves_in_its_only_request_leaves_nothing() {
    let (stack, token, location) = with_session().await;
    stack.client.delete(&token, &location).await.expect(204);
    let bytes = content(500_000, 10);
    let digest = digest_of(&bytes);
    let mut raw = Raw::connect(&stack.client).await;
    let bearer = format!("Bearer {token}");
    let headers = [("Authorization", bearer.as_str()), ("Content-Length", "500000")];
    raw.head(&format!("POST /v2/app/blobs/uploads/?digest={digest}"), &headers).await;
    raw.send(&bytes[..400_000]).await;
    eventually("the request has begun", async || (!stack.objects().is_empty()).then_some(())).await;
    raw.leave().await;
    eventually("nothing is left", async || stack.objects().is_empty().then_some(())).await;
    stack.client.head(&token, format!("/v2/app/blobs/{digest}")).await.expect(404);
}

#[tokio::test]
async fn a_client_that_leaves_during_the_push_of_a_manifest_has_pushed_all_or_nothing() {
    let (stack, token, _) = with_session().await;
    let image = Image::new("left");
    image.push(&stack.client, &token, "app", "v1").await;
    let length = image.manifest.len();
    let bearer = format!("Bearer {token}");
    for (tag, sent) in [("part", length - 1), ("whole", length)] {
        let mut raw = Raw::connect(&stack.client).await;
        let announced = length.to_string();
        let headers = [
            ("Authorization", bearer.as_str()),
            ("Content-Type", MANIFEST),
            ("Content-Length", announced.as_str()),
            ("Expect", "100-continue"),
        ];
        raw.head(&format!("PUT /v2/app/manifests/{tag}"), &headers).await;
        // The request has begun.
        assert_eq!(raw.unchecked_answer(false).await.status.as_u16(), 100);
        raw.send(&image.manifest[..sent]).await;
        raw.leave().await;
    }
    image.push(&stack.client, &token, "app", "behind-them").await;
    // It is dropped if it was not begun when the client left.
    let whole = stack.client.get(&token, "/v2/app/manifests/whole").await;
    assert!(whole.status == 404 || whole.body == image.manifest, "{whole:?}");
    stack.client.get(&token, "/v2/app/manifests/part").await.expect(404);
}

#[tokio::test]
async fn a_client_that_waits_for_100_is_refused_before_it_sends() {
    let (stack, _, location) = with_session().await;
    let mut raw = Raw::connect(&stack.client).await;
    let headers = [("Content-Length", "1048576"), ("Expect", "100-continue")];
    raw.head(&format!("PATCH {location}"), &headers).await;
    raw.answer(&location, false).await.expect_error(401, "UNAUTHORIZED");
}

#[tokio::test]
async fn a_client_that_waits_for_100_gets_it_when_it_may_send() {
    let (stack, token, location) = with_session().await;
    let mut raw = Raw::connect(&stack.client).await;
    let bearer = format!("Bearer {token}");
    let headers =
        [("Authorization", bearer.as_str()), ("Content-Length", "4"), ("Expect", "100-continue")];
    raw.head(&format!("PATCH {location}"), &headers).await;
    assert_eq!(raw.unchecked_answer(false).await.status.as_u16(), 100);
    raw.send(b"0123").await;
    assert_eq!(raw.answer(&location, false).await.expect(202).header("range"), "0-3");
}

#[tokio::test]
async fn a_session_can_be_cancelled_under_a_half_open_request() {
    let (stack, token, location) = with_session().await;
    let mut half_open = Raw::connect(&stack.client).await;
    let bearer = format!("Bearer {token}");
    let headers = [("Authorization", bearer.as_str()), ("Content-Length", "1048576")];
    half_open.head(&format!("PATCH {location}"), &headers).await;
    half_open.send(&content(600_000, 6)).await;
    eventually("the request has begun to write", async || {
        let written = stack.objects().first().and_then(|path| path.metadata().ok());
        written.is_some_and(|meta| meta.len() > 0).then_some(())
    })
    .await;
    stack.client.delete(&token, &location).await.expect(204);
    let _ = half_open.try_send(&content(448_576, 7)).await;
    half_open.answer(&location, false).await.expect_error(409, "BLOB_UPLOAD_INVALID");
    stack.client.get(&token, &location).await.expect_error(404, "BLOB_UPLOAD_UNKNOWN");
    assert_eq!(stack.objects().len(), 0);
}

#[tokio::test]
async fn an_http2_stream_that_is_reset_leaves_the_session_too() {
    let (stack, token, location) = with_session().await;
    let bytes = content(900_000, 8);
    let http2 = stack.client_with(&["h2"]);
    let call = http2.call("PATCH", &location).bearer(&token).body(bytes.slice(..700_000));
    let sending = tokio::spawn(call.endless().try_send());
    eventually("the request has begun to write", async || {
        let written = stack.objects().first().and_then(|path| path.metadata().ok());
        written.is_some_and(|meta| meta.len() > 0).then_some(())
    })
    .await;
    sending.abort();
    let received = eventually("the session holds what was received", async || {
        let progress = stack.client.get(&token, &location).await.expect(204);
        let last: usize = progress.header("range")[2..].parse().expect("the last byte received");
        (last > 0).then_some(last + 1)
    })
    .await;
    assert!(received <= 700_000);
    finish(&stack, &token, &location, &bytes, received).await;
}

#[tokio::test]
async fn an_upload_under_way_records_nothing_once_the_registry_is_read_only() {
    let (stack, token, location) = with_session().await;
    let bytes = content(1_000_000, 12);
    patch(&stack.client, &token, &location, None, bytes.slice(..1000)).await.expect(202);
    let rest = bytes.slice(1000..);
    let (bearer, length) = (format!("Bearer {token}"), rest.len().to_string());
    let headers = [("Authorization", bearer.as_str()), ("Content-Length", length.as_str())];
    let mut under_way = Raw::connect(&stack.client).await;
    under_way.head(&format!("PATCH {location}"), &headers).await;
    under_way.send(&rest[..600_000]).await;
    eventually("the request has begun to write", async || {
        let written = stack.objects().first().and_then(|path| path.metadata().ok());
        written.is_some_and(|meta| meta.len() > 1000).then_some(())
    })
    .await;
    run(&stack, Job::ReadOnly { on: true }).await;
    let _ = under_way.try_send(&rest[600_000..]).await;
    let refused = under_way.unchecked_answer(false).await;
    assert_eq!(refused.status.as_u16(), 405);
    let progress = stack.client.get(&token, &location).await.expect(204);
    assert_eq!(progress.header("range"), "0-999");
    run(&stack, Job::ReadOnly { on: false }).await;
    finish(&stack, &token, &location, &bytes, 1000).await;
}
