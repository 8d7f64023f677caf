//! Attacks on connections: what a stranger holds by sending little, or nothing. Each hold ends, and
//! whoever is slow and honest goes on.

use std::time::Duration;

use bytes::Bytes;
use harness::{
    H2, Options, Raw, Stack,
    client::Client,
    eventually,
    h2::{Frame, kind},
    image::{digest_of, push_blob, start_upload},
    upload::content,
    within,
};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

/// The times of the settings, short.
const SHORT: &str = "connection_idle_secs_max = 1\nbody_idle_secs_max = 1\n";

const PUBLIC: &str =
    "[public]\nlisten = '127.0.0.1:0'\ncertificate = 'server.pem'\nkey = 'server.key'\n";

/// How long a test waits for what would last for ever.
const LONG: Duration = Duration::from_secs(60);

async fn with_limits(limits: &str) -> Stack {
    Stack::with(Options { registry_limits: limits.to_owned(), ..Options::default() }).await
}

async fn with_short_times() -> Stack {
    with_limits(SHORT).await
}

/// Reads to the end of a connection, which the server announces first.
async fn is_ended(what: &str, connection: &mut H2) -> Vec<Frame> {
    let frames = timeout(LONG, connection.until_closed()).await.expect(what);
    assert!(frames.iter().any(|frame| frame.kind == kind::GOAWAY), "{what}: {frames:?}");
    frames
}

/// A good client is served.
async fn is_served(client: &Client) {
    client.call("GET", "/v2/").send().await.expect(401);
}

#[tokio::test]
async fn frames_that_a_test_writes_are_understood() {
    let stack = Stack::start().await;
    let client = stack.client_with(&["h2"]);
    let mut connection = H2::connect(&client, 65_535).await;
    let stream = connection.request("GET", "/v2/", &[], true).await.unwrap();
    let mut kinds = Vec::new();
    while let Some(frame) = connection.next().await {
        if frame.stream == stream {
            kinds.push(frame.kind);
            if frame.ends_stream() {
                break;
            }
        }
    }
    assert_eq!(kinds, [kind::HEADERS, kind::DATA]);
}

#[tokio::test]
async fn a_connection_on_which_nothing_is_asked_ends() {
    let stack = with_short_times().await;
    let h2 = stack.client_with(&["h2"]);
    let mut silent = H2::connect(&h2, 65_535).await;
    let mut unfinished = H2::connect(&h2, 65_535).await;
    // Neither END_HEADERS nor END_STREAM, and half a field.
    unfinished.frame(kind::HEADERS, 0, 1, &[0, 5, b':']).await.unwrap();
    let mut greeting = Raw::connect(&h2).await;
    greeting.send(b"PRI * HTTP/2.0\r\n").await;
    let mut head = Raw::connect(&stack.client).await;
    head.send(b"GET /v2/ HTTP/1.1\r\nHost: ").await;
    let mut served = Raw::connect(&stack.client).await;
    served.head("GET /v2/", &[]).await;
    served.answer("/v2/", false).await.expect(401);
    let frames = is_ended("no request", &mut silent).await;
    assert!(frames.iter().any(|frame| frame.kind == kind::PING), "it is asked whether it is there");
    is_ended("unfinished headers", &mut unfinished).await;
    timeout(LONG, greeting.until_closed()).await.expect("half a preface");
    timeout(LONG, head.until_closed()).await.expect("half a head");
    timeout(LONG, served.until_closed()).await.expect("idle after a request");
    is_served(&stack.client).await;
}

#[tokio::test]
async fn an_answer_that_nobody_takes_ends_its_connection() {
    let stack = with_short_times().await;
    let token = stack.forged_token("andrew", &["repository:app:*"]);
    let bytes = content(1_000_000, 1);
    push_blob(&stack.client, &token, "app", &bytes).await;
    let blob = format!("/v2/app/blobs/{}", digest_of(&bytes));
    let bearer = format!("Bearer {token}");
    let bearer = [("authorization", bearer.as_str())];
    let h2 = stack.client_with(&["h2"]);
    for (window, method, path, headers) in [
        (0, "GET", "/v2/", &[][..]),
        (0, "GET", "/token", &[]),
        (0, "GET", blob.as_str(), &bearer),
        (1, "GET", blob.as_str(), &bearer),
        (0, "POST", "/token", &[]),
    ] {
        let mut connection = H2::connect(&h2, window).await;
        let stream = connection.request(method, path, headers, method == "GET").await.unwrap();
        if method == "POST" {
            connection.data(stream, b"grant_type=password", true).await.unwrap();
        }
        is_served(&stack.client).await;
        is_ended(&format!("{method} {path}, window {window}"), &mut connection).await;
    }
}

#[tokio::test]
async fn a_window_that_opens_by_a_byte_now_and_then_is_no_progress() {
    let stack = with_short_times().await;
    let token = stack.forged_token("andrew", &["repository:app:*"]);
    let bytes = content(1_000_000, 1);
    push_blob(&stack.client, &token, "app", &bytes).await;
    let blob = format!("/v2/app/blobs/{}", digest_of(&bytes));
    let mut connection = H2::connect(&stack.client_with(&["h2"]), 0).await;
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str())];
    let stream = connection.request("GET", &blob, &headers, true).await.unwrap();
    within(LONG, "it ends", async || {
        sleep(Duration::from_millis(100)).await;
        connection.open_window(stream, 1).await.err()
    })
    .await;
}

#[tokio::test]
async fn a_body_that_trickles_or_never_comes_gets_408_and_its_connection_ends() {
    let stack = with_short_times().await;
    let token = stack.forged_token("andrew", &["repository:app:*"]);
    let bearer = format!("Bearer {token}");
    let authorized = [("Authorization", bearer.as_str()), ("Content-Length", "1000")];
    let mut none = Raw::connect(&stack.client).await;
    none.head("PUT /v2/app/manifests/v1", &authorized).await;
    none.answer("/v2/app/manifests/v1", false).await.expect(408);
    timeout(LONG, none.until_closed()).await.expect("a manifest without its body");
    for (target, headers) in [
        ("PUT /v2/app/manifests/v1", &authorized[..]),
        ("POST /token", &[("Content-Length", "1000")]),
    ] {
        let mut trickling = Raw::connect(&stack.client).await;
        trickling.head(target, headers).await;
        within(LONG, "it ends", async || {
            sleep(Duration::from_millis(100)).await;
            trickling.try_send(b"a").await.err()
        })
        .await;
        let answer = trickling.until_closed().await;
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 408 "), "{target}");
    }
    is_served(&stack.client).await;
}

#[tokio::test]
async fn a_stream_whose_body_never_ends_holds_no_connection() {
    let stack = with_short_times().await;
    let token = stack.forged_token("andrew", &["repository:app:*"]);
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str())];
    let h2 = stack.client_with(&["h2"]);
    for (method, path, headers) in [
        ("POST", "/token", &[][..]),
        ("PUT", "/v2/app/manifests/v1", &headers),
        ("POST", "/v2/app/blobs/uploads/", &headers),
    ] {
        let mut silent = H2::connect(&h2, 65_535).await;
        silent.request(method, path, headers, false).await.unwrap();
        let mut trickling = H2::connect(&h2, 65_535).await;
        let stream = trickling.request(method, path, headers, false).await.unwrap();
        is_ended(path, &mut silent).await;
        within(LONG, "it ends", async || {
            sleep(Duration::from_millis(100)).await;
            trickling.data(stream, b"a", false).await.err()
        })
        .await;
    }
}

#[tokio::test]
async fn a_trickling_upload_is_cut_off_and_its_session_stays() {
    let stack = with_short_times().await;
    let token = stack.forged_token("andrew", &["repository:app:*"]);
    let location = start_upload(&stack.client, &token, "app").await;
    let mut raw = Raw::connect(&stack.client).await;
    let bearer = format!("Bearer {token}");
    let headers = [("Authorization", bearer.as_str()), ("Content-Length", "100000")];
    raw.head(&format!("PATCH {location}"), &headers).await;
    raw.send(&[1; 600]).await;
    within(LONG, "it ends", async || {
        sleep(Duration::from_millis(100)).await;
        raw.try_send(&[1]).await.err()
    })
    .await;
    eventually("the session holds what came", async || {
        let progress = stack.client.get(&token, &location).await.expect(204);
        let range = progress.header("range").strip_prefix("0-").expect("a range").to_owned();
        (range.parse::<u64>().expect("a number") >= 599).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_public_listener_of_auth_server_ends_the_same() {
    let auth = format!("{PUBLIC}[limits]\n{SHORT}");
    let stack = Stack::with(Options { auth, ..Options::default() }).await;
    let (client, h2) = (stack.auth_public_client(), stack.auth_public_client_with(&["h2"]));
    let mut silent = H2::connect(&h2, 65_535).await;
    let mut closed = H2::connect(&h2, 0).await;
    closed.request("GET", "/keys", &[], true).await.unwrap();
    let mut endless = H2::connect(&h2, 65_535).await;
    endless.request("POST", "/token", &[], false).await.unwrap();
    let mut slow = Raw::connect(&client).await;
    slow.head("POST /token", &[("Content-Length", "10")]).await;
    client.call("GET", "/keys").send().await.expect(200);
    is_ended("no request", &mut silent).await;
    is_ended("a window that is never opened", &mut closed).await;
    is_ended("a body that never comes", &mut endless).await;
    slow.unchecked_answer(false).await.expect(408);
    timeout(LONG, slow.until_closed()).await.expect("a body that never comes");
    client.call("GET", "/keys").send().await.expect(200);
}

#[tokio::test]
async fn connections_that_ask_for_nothing_keep_nobody_out() {
    let stack = with_limits("connections_max = 20").await;
    let mut strangers = JoinSet::new();
    for _ in 0..30 {
        let client = stack.client.clone();
        strangers.spawn(async move {
            // Some are ended in the middle of their handshake.
            if let Ok(mut connection) = client.try_connect().await {
                let mut byte = [0];
                let _ = tokio::io::AsyncReadExt::read(&mut connection, &mut byte).await;
            }
        });
    }
    let server = stack.client.address();
    for _ in 0..30 {
        // Not even a handshake.
        strangers.spawn(async move {
            let connection = tokio::net::TcpStream::connect(server).await;
            let _ = connection.expect("connecting").readable().await;
        });
    }
    for _ in 0..5 {
        timeout(LONG, is_served(&stack.client)).await.expect("served");
    }
}

#[tokio::test]
async fn who_is_served_is_not_ended_for_others() {
    let stack = with_limits("connections_max = 3").await;
    let token = stack.forged_token("andrew", &["repository:app:*"]);
    let location = start_upload(&stack.client, &token, "app").await;
    let mut raw = Raw::connect(&stack.client).await;
    let bearer = format!("Bearer {token}");
    let headers = [("Authorization", bearer.as_str()), ("Content-Length", "4000")];
    raw.head(&format!("PATCH {location}"), &headers).await;
    for _ in 0..4 {
        raw.send(&[1; 1000]).await;
        let _idle = stack.client.connect().await;
        is_served(&stack.client).await;
    }
    raw.answer(&location, false).await.expect(202);
}

/// What a reader gets of an answer of HTTP/1.1 that takes so much at a time.
async fn take_slowly(raw: &mut Raw, bytes: usize, every: Duration) -> usize {
    let mut taken = 0;
    loop {
        let mut turn = 0;
        while turn < bytes {
            let piece = raw.read(bytes - turn).await;
            if piece.is_empty() {
                return taken + turn;
            }
            turn += piece.len();
        }
        taken += turn;
        sleep(every).await;
    }
}

#[tokio::test]
async fn a_slow_and_steady_reader_gets_everything_and_a_dead_one_is_ended() {
    let stack = with_limits(&format!("{SHORT}transfer_bytes_per_sec_min = 100_000")).await;
    let token = stack.forged_token("andrew", &["repository:app:*"]);
    let bytes = content(3_000_000, 1);
    push_blob(&stack.client, &token, "app", &bytes).await;
    let get = format!("GET /v2/app/blobs/{}", digest_of(&bytes));
    let bearer = format!("Bearer {token}");
    let headers = [("Authorization", bearer.as_str()), ("Connection", "close")];
    let mut slow = Raw::connect(&stack.client).await;
    let mut dead = Raw::connect(&stack.client).await;
    slow.head(&get, &headers).await;
    dead.head(&get, &headers).await;
    let taken = take_slowly(&mut slow, 40_000, Duration::from_millis(100)).await;
    assert!(taken > bytes.len(), "{taken} bytes with the head");
    let left = dead.until_closed().await.len();
    assert!(left < bytes.len(), "what it did not read was kept for it: {left}");
}

/// What a client gets of a blob by HTTP/2 that allows so much at a time.
async fn take_by_windows(stack: &Stack, bytes: &Bytes, window: u32, pongs: bool) -> Vec<u8> {
    let token = stack.forged_token("andrew", &["repository:app:*"]);
    let blob = format!("/v2/app/blobs/{}", digest_of(bytes));
    let mut connection = H2::connect(&stack.client_with(&["h2"]), window).await;
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str())];
    let stream = connection.request("GET", &blob, &headers, true).await.expect("sending");
    let (mut got, mut allowed) = (Vec::new(), window as usize);
    while let Some(frame) = connection.next().await {
        if pongs {
            connection.answer_question(&frame).await.expect("sending");
        }
        if frame.stream != stream || frame.kind != kind::DATA {
            continue;
        }
        got.extend(&frame.payload);
        if frame.ends_stream() {
            break;
        }
        if got.len() == allowed {
            sleep(Duration::from_millis(100)).await;
            allowed += window as usize;
            for stream in [stream, 0] {
                if connection.open_window(stream, window).await.is_err() {
                    return got;
                }
            }
        }
    }
    got
}

#[tokio::test]
async fn who_answers_no_ping_is_gone() {
    let stack = with_limits(&format!("{SHORT}transfer_bytes_per_sec_min = 100_000")).await;
    let token = stack.forged_token("andrew", &["repository:app:*"]);
    let bytes = content(6_000_000, 1);
    push_blob(&stack.client, &token, "app", &bytes).await;
    let (there, gone) = tokio::join!(
        take_by_windows(&stack, &bytes, 60_000, true),
        take_by_windows(&stack, &bytes, 60_000, false),
    );
    assert!(there == bytes, "{} bytes", there.len());
    assert!(gone.len() < bytes.len());
}

#[tokio::test]
async fn a_request_that_says_no_host_or_two_gets_400() {
    let auth = PUBLIC.to_owned();
    let stack = Stack::with(Options { auth, ..Options::default() }).await;
    for (client, path, good) in
        [(&stack.client, "/v2/", 401), (&stack.auth_public_client(), "/keys", 200)]
    {
        for (hosts, status) in [
            ("Host: reg.test\r\n", good),
            ("", 400),
            ("Host: reg.test\r\nHost: reg.test\r\n", 400),
            ("Host: reg.test\r\nHost: other.test\r\n", 400),
            ("Host: a b\r\n", 400),
            ("Host: user@reg.test\r\n", 400),
        ] {
            let mut raw = Raw::connect(client).await;
            raw.send(format!("GET {path} HTTP/1.1\r\n{hosts}\r\n").as_bytes()).await;
            let answer = raw.answer(path, false).await.expect(status);
            assert!(status != 400 || !answer.code().is_empty(), "{hosts:?}");
        }
    }
}
