//! Attacks: what one pusher can hold that all pushers need.

use std::{fs, path::PathBuf, time::Duration};

use bytes::Bytes;
use harness::{
    H2, Raw, Response, Stack,
    client::Call,
    eventually,
    image::{digest_of, push_blob, start_upload},
    stack::Options,
    upload::{commit, content, patch},
    within,
};

/// More than there are slots for uploads, unless told otherwise.
const TRICKLES: usize = 40;

async fn with_limits(registry_limits: &str) -> (Stack, String, String) {
    let registry_limits = registry_limits.to_owned();
    let stack = Stack::with(Options { registry_limits, ..Options::default() }).await;
    let eve = stack.forged_token("eve", &["repository:eve/app:*"]);
    let bob = stack.forged_token("bob", &["repository:bob/app:*"]);
    (stack, eve, bob)
}

fn start(stack: &Stack, token: &str, repository: &str, query: &str) -> Call {
    let target = format!("/v2/{repository}/blobs/uploads/{query}");
    stack.client.call("POST", target).bearer(token)
}

/// Begins to send a chunk of 1,000 bytes, and sends the first.
async fn trickle(stack: &Stack, token: &str, location: &str) -> Raw {
    let mut raw = Raw::connect(&stack.client).await;
    let bearer = format!("Bearer {token}");
    let headers = [("Authorization", bearer.as_str()), ("Content-Length", "1000")];
    raw.head(&format!("PATCH {location}"), &headers).await;
    raw.send(b"1").await;
    raw
}

fn refused(answer: Response, limit: &str) {
    let answer = answer.expect_error(429, "TOOMANYREQUESTS");
    assert_eq!(answer.header("retry-after"), "60");
    let message = answer.json()["errors"][0]["message"].to_string();
    assert!(message.contains(limit) && message.contains("finish or cancel"), "{message}");
}

#[tokio::test]
async fn uploads_that_trickle_keep_nobody_waiting() {
    let (stack, eve, bob) = with_limits("").await;
    let mut trickles = Vec::new();
    for _ in 0..TRICKLES {
        let location = start_upload(&stack.client, &eve, "eve/app").await;
        trickles.push((trickle(&stack, &eve, &location).await, location));
    }
    eventually("every one of them has begun", async || {
        let has_bytes = |path: &PathBuf| path.metadata().is_ok_and(|it| it.len() > 0);
        (stack.objects().iter().filter(|path| has_bytes(path)).count() == TRICKLES).then_some(())
    })
    .await;
    push_blob(&stack.client, &bob, "bob/app", &content(3_000_000, 1)).await;
    // They were all open meanwhile, and nothing of them is lost.
    for (mut raw, location) in trickles {
        raw.send(&[b'1'; 999]).await;
        assert_eq!(raw.answer(&location, false).await.expect(202).header("range"), "0-999");
    }
}

#[tokio::test]
async fn a_subject_has_so_many_sessions_and_others_go_on() {
    let (stack, eve, bob) = with_limits("sessions_per_subject_max = 2").await;
    let client = &stack.client;
    let first = start_upload(client, &eve, "eve/app").await;
    let second = start_upload(client, &eve, "eve/app").await;
    let bytes = Bytes::from_static(b"content");
    let whole = format!("?digest={}", digest_of(&bytes));
    refused(start(&stack, &eve, "eve/app", "").send().await, "allowed, 2");
    refused(start(&stack, &eve, "eve/app", &whole).body(bytes.clone()).send().await, "allowed, 2");
    push_blob(client, &bob, "bob/app", &bytes).await;
    start(&stack, &bob, "bob/app", &whole).body(bytes.clone()).send().await.expect(201);
    // What is open goes on, and makes room when it ends one way or the other.
    commit(client, &eve, &first, &digest_of(&bytes), bytes.clone()).await.expect(201);
    let third = start_upload(client, &eve, "eve/app").await;
    refused(start(&stack, &eve, "eve/app", "").send().await, "allowed, 2");
    client.delete(&eve, &second).await.expect(204);
    start(&stack, &eve, "eve/app", &whole).body(bytes.clone()).send().await.expect(201);
    start_upload(client, &eve, "eve/app").await;
    refused(start(&stack, &eve, "eve/app", "").send().await, "allowed, 2");
    // Nobody goes on with these.
    stack.clock.advance(Duration::from_secs(24 * 60 * 60 + 1));
    let eve = stack.forged_token("eve", &["repository:eve/app:*"]);
    client.get(&eve, &third).await.expect(404);
    start_upload(client, &eve, "eve/app").await;
}

#[tokio::test]
async fn who_is_not_signed_in_has_the_share_of_a_network() {
    let stack = Stack::with(Options {
        registry: "trusted_proxies = ['127.0.0.1']".to_owned(),
        registry_limits: "sessions_per_subject_max = 1".to_owned(),
        ..Options::default()
    })
    .await;
    let nobody = stack.forged_token("", &["repository:public/app:*"]);
    let from = |client: &str| {
        start(&stack, &nobody, "public/app", "").header("x-forwarded-for", client).send()
    };
    from("192.0.2.1").await.expect(202);
    refused(from("192.0.2.77").await, "allowed, 1");
    from("198.51.100.1").await.expect(202);
    from("2001:db8::1").await.expect(202);
    refused(from("2001:db8::ffff:1").await, "allowed, 1");
    let eve = stack.forged_token("eve", &["repository:public/app:*"]);
    start(&stack, &eve, "public/app", "").send().await.expect(202);
}

#[tokio::test]
async fn the_unfinished_bytes_of_a_subject_are_bounded() {
    let (stack, eve, bob) = with_limits("unfinished_bytes_per_subject_max = 1000").await;
    let client = &stack.client;
    let (one, other) = (content(600, 1), content(600, 2));
    let first = start_upload(client, &eve, "eve/app").await;
    let second = start_upload(client, &eve, "eve/app").await;
    patch(client, &eve, &first, None, one.clone()).await.expect(202);
    refused(patch(client, &eve, &second, None, other.clone()).await, "1000 bytes");
    let whole = format!("?digest={}", digest_of(&other));
    let monolith = start(&stack, &eve, "eve/app", &whole).body(other.clone());
    refused(monolith.clone().send().await, "1000 bytes");
    push_blob(client, &bob, "bob/app", &other).await;
    // The session stands where it stood, and goes on when there is room.
    client.get(&eve, &second).await.expect(204);
    commit(client, &eve, &first, &digest_of(&one), "").await.expect(201);
    patch(client, &eve, &second, None, other.clone()).await.expect(202);
    refused(monolith.clone().send().await, "1000 bytes");
    client.delete(&eve, &second).await.expect(204);
    monolith.send().await.expect(201);
}

#[tokio::test]
async fn bytes_that_are_on_their_way_count_too() {
    const MIB: usize = 1024 * 1024;
    let (stack, eve, bob) = with_limits("unfinished_bytes_per_subject_max = 3000000").await;
    let client = &stack.client;
    let location = start_upload(client, &eve, "eve/app").await;
    // No length is announced.
    let endless = client.call("PATCH", &location).bearer(&eve).body(content(12 * MIB, 3));
    refused(endless.streamed().send().await, "3000000 bytes");
    assert!(stack.objects().iter().all(|it| it.metadata().is_ok_and(|it| it.len() == 0)));
    // A request that goes on has received most of it, and nothing of that is recorded yet.
    let mut raw = Raw::connect(client).await;
    let bearer = format!("Bearer {eve}");
    let headers = [("Authorization", bearer.as_str()), ("Content-Length", "3000000")];
    raw.head(&format!("PATCH {location}"), &headers).await;
    raw.send(&content(2_999_999, 4)).await;
    eventually("that much is written", async || {
        let written = |it: &PathBuf| it.metadata().is_ok_and(|it| it.len() == 2_999_999);
        stack.objects().iter().any(written).then_some(())
    })
    .await;
    let second = start_upload(client, &eve, "eve/app").await;
    refused(patch(client, &eve, &second, None, "two").await, "3000000 bytes");
    push_blob(client, &bob, "bob/app", &content(MIB, 5)).await;
    raw.leave().await;
    eventually("what came of it is recorded", async || {
        let progress = client.get(&eve, &location).await.expect(204);
        (progress.header("range") == "0-2999998").then_some(())
    })
    .await;
    refused(patch(client, &eve, &second, None, "two").await, "3000000 bytes");
    client.delete(&eve, &location).await.expect(204);
    patch(client, &eve, &second, None, "two").await.expect(202);
}

#[tokio::test]
async fn uploads_whose_clients_think_hold_so_many_files_and_all_go_on() {
    const STREAMS: usize = 100;
    let (stack, eve, _) = with_limits("").await;
    let client = stack.client_with(&["h2"]);
    let digest = digest_of(b"12");
    let target = format!("/v2/eve/app/blobs/uploads/?digest={digest}");
    let bearer = format!("Bearer {eve}");
    let mut connections = Vec::new();
    for _ in 0..3 {
        let mut connection = H2::connect(&client, 65_535).await;
        for _ in 0..STREAMS {
            let headers = [("authorization", bearer.as_str())];
            let stream = connection.request("POST", &target, &headers, false).await.unwrap();
            connection.data(stream, b"1", false).await.unwrap();
        }
        connections.push(connection);
    }
    let number = connections.len() * STREAMS;
    within(Duration::from_secs(60), "every one of them has begun", async || {
        let has_byte = |path: &&PathBuf| path.metadata().is_ok_and(|it| it.len() == 1);
        (stack.objects().iter().filter(has_byte).count() == number).then_some(())
    })
    .await;
    let objects = stack.root().join("registry/objects");
    eventually("no more files are open than may be", async || {
        let entries = fs::read_dir("/proc/self/fd").expect("descriptors").flatten();
        let files = entries.filter_map(|entry| fs::read_link(entry.path()).ok());
        (files.filter(|file| file.starts_with(&objects)).count() <= 256).then_some(())
    })
    .await;
    // Those whose file was closed go on where they were.
    for connection in &mut connections {
        for stream in (1..).step_by(2).take(STREAMS) {
            connection.data(stream, b"2", true).await.unwrap();
        }
    }
    within(Duration::from_secs(60), "all of them have become one blob", async || {
        (stack.objects().len() == 1).then_some(())
    })
    .await;
    let blob = stack.client.get(&eve, format!("/v2/eve/app/blobs/{digest}")).await;
    assert_eq!(blob.expect(200).body, "12");
}
