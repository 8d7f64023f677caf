//! Attacks on memory and open files: what a client makes the server hold by asking for much and
//! taking nothing, or by sending all but the end.

use bytes::Bytes;
use harness::{
    Client, H2, Raw, Response, Stack,
    h2::{Frame, kind},
    image::{Image, MANIFEST, digest_of, push_blob, put_manifest},
    stack::Options,
    upload::content,
};
use serde_json::{Value, json};

use crate::metrics::{read, value};

const MIB: usize = 1024 * 1024;

/// Streams of one HTTP/2 connection.
const STREAMS: usize = 100;

/// Both servers, with metrics.
async fn measured() -> Stack {
    let listen = "metrics = { listen = \"127.0.0.1:0\" }\n".to_owned();
    Stack::with(Options { auth: listen.clone(), registry: listen, ..Options::default() }).await
}

async fn memory(stack: &Stack) -> usize {
    let told = read(stack.metrics_address()).await;
    value(&told, "berth_memory_bytes{server=\"registry\"}") as usize
}

async fn files(stack: &Stack) -> usize {
    value(&read(stack.metrics_address()).await, "berth_blob_files_open") as usize
}

/// Waits until nothing is held any more.
async fn all_is_given_back(stack: &Stack) {
    harness::eventually("all is given back", async || {
        (memory(stack).await == 0 && files(stack).await == 0).then_some(())
    })
    .await;
}

/// A manifest of `size` bytes, whose subject is `subject`; each `n` makes another.
fn large(size: usize, n: usize, subject: Option<&Bytes>) -> Bytes {
    let mut manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "layers": [],
        "artifactType": format!("text/{}", n % 2), "annotations": { "n": n, "fill": "" } });
    manifest["annotations"]["n"] = n.to_string().into();
    if let Some(subject) = subject {
        manifest["subject"] =
            json!({ "mediaType": MANIFEST, "digest": digest_of(subject).as_str(), "size": 1 });
    }
    let missing = size - manifest.to_string().len();
    manifest["annotations"]["fill"] = "x".repeat(missing).into();
    manifest.to_string().into()
}

async fn push_large(stack: &Stack, token: &str, manifest: &Bytes) -> String {
    let digest = digest_of(manifest);
    let reference = digest.as_str();
    put_manifest(&stack.client, token, "app", reference, MANIFEST, manifest.clone())
        .await
        .expect(201);
    reference.to_owned()
}

/// Reads what is answered on `streams` until each has a head, and gives how many were 200.
async fn heads(connection: &mut H2, streams: usize) -> usize {
    let (mut heads, mut good) = (0, 0);
    while heads < streams {
        let frame = connection.next().await.expect("a frame");
        if frame.kind == kind::HEADERS {
            heads += 1;
            good += usize::from(frame.is_ok_head());
        }
    }
    good
}

async fn is_served(client: &Client, token: &str, target: &str) -> Response {
    client.get(token, target).await.expect(200)
}

#[tokio::test]
async fn manifests_that_nobody_takes_stay_within_the_share_of_who_asked() {
    let stack = measured().await;
    let token = stack.forged_token("andrew", &["repository:app:*"]);
    let manifest = large(4 * MIB, 0, None);
    let target = format!("/v2/app/manifests/{}", push_large(&stack, &token, &manifest).await);
    let bearer = format!("Bearer {token}");
    let mut connection = H2::connect(&stack.client_with(&["h2"]), 0).await;
    for _ in 0..STREAMS {
        let headers = [("authorization", bearer.as_str())];
        connection.request("GET", &target, &headers, true).await.unwrap();
    }
    // Of those that wait some are too many at once, and the others wait for a while.
    assert!(heads(&mut connection, STREAMS).await <= 4);
    let held = memory(&stack).await;
    assert!(held > 0 && held <= 16 * MIB, "{held} bytes");

    let good = stack.forged_token("bob", &["repository:app:pull"]);
    assert_eq!(is_served(&stack.client, &good, &target).await.body, manifest);
    let refused = stack.client.get(&token, &target).await.expect_error(503, "UNAVAILABLE");
    assert_eq!(refused.header("retry-after"), "2");
    drop(connection);
    all_is_given_back(&stack).await;
    is_served(&stack.client, &token, &target).await;
}

#[tokio::test]
async fn blobs_that_nobody_takes_stay_within_the_share_of_who_asked() {
    let stack = measured().await;
    let token = stack.forged_token("andrew", &["repository:app:*"]);
    let blob = content(2 * MIB, 1);
    push_blob(&stack.client, &token, "app", &blob).await;
    let target = format!("/v2/app/blobs/{}", digest_of(&blob));
    let bearer = format!("Bearer {token}");
    let mut connections = Vec::new();
    for _ in 0..3 {
        let mut connection = H2::connect(&stack.client_with(&["h2"]), 1).await;
        for _ in 0..STREAMS {
            let headers = [("authorization", bearer.as_str())];
            connection.request("GET", &target, &headers, true).await.unwrap();
        }
        // All are answered: each piece is smaller than the one before.
        assert_eq!(heads(&mut connection, STREAMS).await, STREAMS);
        connections.push(connection);
    }
    let (held, open) = (memory(&stack).await, files(&stack).await);
    assert!(held > 0 && held <= 16 * MIB, "{held} bytes");
    assert!((300..=1024).contains(&open), "{open} files");
    let good = stack.forged_token("bob", &["repository:app:pull"]);
    assert_eq!(is_served(&stack.client, &good, &target).await.body, blob);
    // Each of them goes on once it is taken.
    let mut connection = connections.remove(0);
    connection.open_window(0, 1 << 30).await.unwrap();
    for stream in 0..STREAMS as u32 {
        connection.open_window(2 * stream + 1, 1 << 30).await.unwrap();
    }
    let mut ended = 0;
    while ended < STREAMS {
        let frame = connection.next().await.expect("a frame");
        ended += usize::from(frame.ends_stream());
    }
    drop((connection, connections));
    all_is_given_back(&stack).await;
}

#[tokio::test]
async fn hundreds_of_pulls_that_nobody_takes_are_all_answered_one_to_a_connection() {
    const PULLS: usize = 400;
    let stack = measured().await;
    let token = stack.forged_token("andrew", &["repository:app:*"]);
    let blob = content(8 * MIB, 1);
    push_blob(&stack.client, &token, "app", &blob).await;
    let request = format!("GET /v2/app/blobs/{}", digest_of(&blob));
    let bearer = format!("Bearer {token}");
    let mut pulls = Vec::new();
    for n in 0..PULLS {
        let mut pull = Raw::connect_narrow(&stack.client).await;
        pull.head(&request, &[("Authorization", &bearer)]).await;
        let status = String::from_utf8(pull.read(12).await).unwrap();
        assert_eq!(status, "HTTP/1.1 200", "the {n}th pull");
        pulls.push(pull);
    }
    let held = memory(&stack).await;
    assert!(held <= 16 * MIB, "{held} bytes");
}

#[tokio::test]
async fn manifests_that_never_end_are_given_up_and_others_go_on() {
    let listen = "metrics = { listen = \"127.0.0.1:0\" }\n".to_owned();
    let registry_limits = "body_idle_secs_max = 1".to_owned();
    let options = Options { registry: listen, registry_limits, ..Options::default() };
    let stack = Stack::with(options).await;
    let token = stack.forged_token("andrew", &["repository:app:*"]);
    let bearer = format!("Bearer {token}");
    let length = (4 * MIB).to_string();
    let mut connection = H2::connect(&stack.client_with(&["h2"]), 65_535).await;
    for _ in 0..STREAMS {
        let headers = [("authorization", bearer.as_str()), ("content-length", length.as_str())];
        let stream = connection.request("PUT", "/v2/app/manifests/x", &headers, false).await;
        connection.data(stream.unwrap(), b"{", false).await.unwrap();
    }
    harness::eventually("some are read", async || (memory(&stack).await > 0).then_some(())).await;
    let held = memory(&stack).await;
    assert!(held <= 16 * MIB, "{held} bytes");
    let good = stack.forged_token("bob", &["repository:other:*"]);
    Image::new("good").push(&stack.client, &good, "other", "v1").await;
    assert_eq!(heads(&mut connection, STREAMS).await, 0);
    all_is_given_back(&stack).await;
}

#[tokio::test]
async fn a_manifest_that_makes_no_progress_is_408() {
    let registry_limits = "body_idle_secs_max = 1".to_owned();
    let stack = Stack::with(Options { registry_limits, ..Options::default() }).await;
    let token = stack.forged_token("andrew", &["repository:app:*"]);
    let call = stack.client.call("PUT", "/v2/app/manifests/v1").bearer(&token);
    let answer = call.body("{").endless().send().await;
    answer.expect_error(408, "UNAVAILABLE");
}

#[tokio::test]
async fn what_is_wrong_with_a_manifest_is_told_in_few_words() {
    let stack = Stack::start().await;
    let token = stack.forged_token("andrew", &["repository:app:*"]);
    let digest = digest_of(b"x");
    let things = r#"{"":0},"#.repeat(500_000);
    for body in [
        format!(r#"{{"schemaVersion":2,"config":{{"digest":"{digest}","size":[{things}0]}}}}"#),
        format!(r#"{{"schemaVersion":2,"annotations":{{"a":[{things}0]}}}}"#),
        format!(r#"{{"schemaVersion":2,"mediaType":"{}"}}"#, "x".repeat(4_000_000)),
    ] {
        let answer = put_manifest(&stack.client, &token, "app", "v1", MANIFEST, body.into()).await;
        let answer = answer.expect_error(400, "MANIFEST_INVALID");
        assert!(answer.body.len() < 4096, "{} bytes", answer.body.len());
    }
    // Nor is it told all that is missing.
    let layers: Vec<Value> = (0..4000_u32)
        .map(|n| json!({ "digest": digest_of(&n.to_be_bytes()).as_str(), "size": 1 }))
        .collect();
    let body = json!({ "schemaVersion": 2, "layers": layers }).to_string();
    let answer = put_manifest(&stack.client, &token, "app", "v1", MANIFEST, body.into()).await;
    let answer = answer.expect_error(400, "MANIFEST_BLOB_UNKNOWN");
    assert_eq!(answer.json()["errors"].as_array().map(Vec::len), Some(20));
}

/// Follows the links: the digests of each page, and how long it was.
async fn pages(client: &Client, token: &str, target: &str) -> Vec<(Vec<String>, usize)> {
    let (mut target, mut pages) = (target.to_owned(), Vec::new());
    loop {
        let answer = client.get(token, &target).await.expect(200);
        let json = answer.json();
        let manifests = json["manifests"].as_array().expect("a list");
        let digests = manifests.iter().map(|it| it["digest"].as_str().expect("text").to_owned());
        pages.push((digests.collect(), answer.body.len()));
        assert!(pages.len() < 100, "the pages do not end");
        let Some(link) = answer.find_header("link") else { return pages };
        let link = link.strip_prefix('<').and_then(|it| it.strip_suffix(">; rel=\"next\""));
        target = link.expect("a link to the next page").to_owned();
    }
}

#[tokio::test]
async fn pages_of_referrers_have_four_mebibytes_or_one_referrer() {
    let registry_limits = "manifest_bytes_max = 6291456".to_owned();
    let stack = Stack::with(Options { registry_limits, ..Options::default() }).await;
    let token = stack.forged_token("andrew", &["repository:app:*"]);
    let subject = Bytes::from_static(b"whatever");
    let mut all = Vec::new();
    for (n, size) in
        [MIB, 5 * MIB, 1000, 3 * MIB / 2, 3 * MIB / 2, 1000, MIB, 4 * MIB].iter().enumerate()
    {
        let manifest = large(*size, n, Some(&subject));
        all.push((push_large(&stack, &token, &manifest).await, *size, n % 2));
    }
    all.sort();
    let target = format!("/v2/app/referrers/{}", digest_of(&subject));
    for (query, kinds) in
        [("", 0..2), ("?artifactType=text/0", 0..1), ("?artifactType=text/1", 1..2)]
    {
        let pages = pages(&stack.client, &token, &format!("{target}{query}")).await;
        let found: Vec<&String> = pages.iter().flat_map(|(digests, _)| digests).collect();
        let expected: Vec<&String> = all
            .iter()
            .filter(|(.., kind)| kinds.contains(kind))
            .map(|(digest, ..)| digest)
            .collect();
        assert_eq!(found, expected, "{query:?}");
        for (digests, length) in &pages {
            assert!(
                *length <= 4 * MIB || digests.len() == 1,
                "{} in {length} bytes",
                digests.len()
            );
        }
    }
}

#[tokio::test]
async fn referrers_that_nobody_takes_stay_within_the_share_of_who_asked() {
    let stack = measured().await;
    let token = stack.forged_token("andrew", &["repository:app:*"]);
    let subject = Bytes::from_static(b"whatever");
    for n in 0..4 {
        push_large(&stack, &token, &large(2 * MIB, n, Some(&subject))).await;
    }
    let target = format!("/v2/app/referrers/{}", digest_of(&subject));
    let bearer = format!("Bearer {token}");
    let mut connection = H2::connect(&stack.client_with(&["h2"]), 0).await;
    for _ in 0..STREAMS {
        let headers = [("authorization", bearer.as_str())];
        connection.request("GET", &target, &headers, true).await.unwrap();
    }
    let good = heads(&mut connection, STREAMS).await;
    let held = memory(&stack).await;
    assert!(good > 0 && held > 0 && held <= 16 * MIB, "{good} answers, {held} bytes");
    let bob = stack.forged_token("bob", &["repository:app:pull"]);
    assert_eq!(pages(&stack.client, &bob, &target).await.len(), 4);
    drop(connection);
    all_is_given_back(&stack).await;
}

#[tokio::test]
async fn token_requests_that_never_end_leave_room_for_those_who_signed_in() {
    let stack = measured().await;
    stack.grant("andrew", "app:*").await;
    let token = stack.token("andrew", &["repository:app:*"]).await;
    let mut connections = Vec::new();
    for _ in 0..4 {
        let mut connection = H2::connect(&stack.client_with(&["h2"]), 65_535).await;
        for _ in 0..STREAMS {
            let headers = [("content-length", "65536")];
            let stream = connection.request("POST", "/token", &headers, false).await.unwrap();
            connection.data(stream, b"a=b", false).await.unwrap();
        }
        connections.push(connection);
    }
    harness::eventually("the network has its share", async || {
        (memory(&stack).await == 16 * MIB).then_some(())
    })
    .await;
    Image::new("good").push(&stack.client, &token, "app", "v1").await;
    // What needs no body is answered as ever.
    stack.token("andrew", &["repository:app:*"]).await;
}

#[tokio::test]
async fn requests_whose_heads_are_large_are_so_many_and_others_go_on_behind_them() {
    let stack = Stack::start().await;
    let client = stack.client_with(&["h2"]);
    let large = "x".repeat(14_000);
    let headers = [("content-length", "1"), ("x-large", large.as_str())];
    let mut held = Vec::new();
    // A network may have sixteen MiB of them, with the trailers that may come: these are twice as much,
    // so that enough of them are under way when a busy machine has given the first ones up.
    for _ in 0..8 {
        let mut connection = H2::connect(&client, 65_535).await;
        for _ in 0..STREAMS {
            connection.request("POST", "/token", &headers, false).await.unwrap();
        }
        held.push(connection);
    }
    let mut last = held.pop().unwrap();
    let is_refusal = |frame: &Frame| {
        let text = String::from_utf8_lossy(&frame.payload);
        frame.kind == kind::DATA && text.contains("too many requests are under way")
    };
    // Of those before, some may have been given up by now.
    while !is_refusal(&last.next().await.expect("a refusal")) {}
    drop((held, last));
    harness::eventually("others go on", async || {
        let answer = stack.client.call("GET", "/healthz").send().await;
        (answer.status == 200).then_some(())
    })
    .await;
}
