//! TLS: certificates renewed while serving, protocols by ALPN, and clients that do not behave.

use std::{fs, time::Duration};

use harness::{Client, Raw, Stack, eventually};
use rustls::pki_types::CertificateDer;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

async fn served(client: &Client) -> CertificateDer<'static> {
    let stream = client.connect().await;
    let chain = stream.get_ref().1.peer_certificates().expect("a certificate");
    chain[0].clone().into_owned()
}

async fn becomes(stack: &Stack, certificate: &CertificateDer<'_>) {
    eventually("the new certificate is served", async || {
        (served(&stack.client).await == *certificate).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_renewed_certificate_is_served_and_open_connections_stay() {
    let stack = Stack::start().await;
    let old = served(&stack.client).await;
    let mut open = Raw::connect(&stack.client).await;
    open.head("GET /healthz", &[]).await;
    open.unchecked_answer(false).await.expect(200);
    let new = stack.renew_certificate();
    assert_ne!(new, old);
    becomes(&stack, &new).await;
    open.head("GET /healthz", &[]).await;
    open.unchecked_answer(false).await.expect(200);
}

#[tokio::test]
async fn half_of_a_new_pair_is_not_used() {
    let stack = Stack::start().await;
    let old = served(&stack.client).await;
    let folder = tempfile::tempdir().expect("a folder");
    let new = stack.issue_certificate(folder.path());
    let move_in = |name: &str| {
        fs::copy(folder.path().join(name), stack.root().join(name)).expect("copying");
    };
    move_in("server.pem");
    fs::write(stack.root().join("server.key"), "-----BEGIN PRIV").expect("writing");
    // Nothing can be seen of a look that changes nothing; this is longer than from one to the next.
    let looked = tokio::time::Instant::now() + Duration::from_millis(2500);
    while tokio::time::Instant::now() < looked {
        assert_eq!(served(&stack.client).await, old);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    move_in("server.key");
    becomes(&stack, &new).await;
}

#[tokio::test]
async fn the_protocol_is_chosen_by_alpn() {
    let stack = Stack::start().await;
    for (offered, chosen) in [
        (&[][..], None),
        (&["http/1.1"], Some("http/1.1")),
        (&["h2"], Some("h2")),
        (&["http/1.1", "h2"], Some("h2")),
        (&["spdy/3", "http/1.1"], Some("http/1.1")),
    ] {
        let client = stack.client_with(offered);
        let stream = client.connect().await;
        let protocol = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
        assert_eq!(protocol.as_deref(), chosen.map(str::as_bytes), "{offered:?}");
        client.call("GET", "/v2/").send().await.expect(401);
    }
    assert!(stack.client_with(&["spdy/3"]).try_connect().await.is_err());
}

#[tokio::test]
async fn silent_and_strange_clients_stop_nobody() {
    let stack = Stack::start().await;
    let mut silent = Vec::new();
    for first in [&b""[..], b"\x16\x03\x01", b"GET /v2/ HTTP/1.1\r\nHost: reg.test\r\n\r\n"] {
        for _ in 0..5 {
            let mut stream = TcpStream::connect(stack.client.address()).await.expect("connecting");
            stream.write_all(first).await.expect("sending");
            silent.push(stream);
        }
    }
    let answer = stack.client.call("GET", "/v2/").send();
    let answer = tokio::time::timeout(Duration::from_secs(5), answer).await.expect("an answer");
    answer.expect(401);
}

#[tokio::test]
async fn a_hundred_silent_clients_stop_nobody_either() {
    let stack = Stack::start().await;
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(TcpStream::connect(stack.client.address()).await.expect("connecting"));
    }
    let answer = stack.client.call("GET", "/v2/").send();
    let answer = tokio::time::timeout(Duration::from_secs(5), answer).await.expect("an answer");
    answer.expect(401);
}

#[tokio::test]
async fn a_client_that_never_ends_its_headers_stops_nobody() {
    let stack = Stack::start().await;
    let mut slow = Raw::connect(&stack.client).await;
    slow.send(b"GET /v2/ HTTP/1.1\r\nHost: reg.test\r\nX-Slow: ").await;
    stack.client.call("GET", "/v2/").send().await.expect(401);
    slow.send(b"now\r\n\r\n").await;
    slow.answer("/v2/", false).await.expect(401);
}

#[tokio::test]
async fn a_header_block_over_64_kib_gets_431() {
    let stack = Stack::start().await;
    for (size, status) in [(60 * 1024, 401), (65 * 1024, 431)] {
        let mut raw = Raw::connect(&stack.client).await;
        let long = "x".repeat(size);
        let head = format!("GET /v2/ HTTP/1.1\r\nHost: reg.test\r\nX-Long: {long}\r\n\r\n");
        // The server may answer and close before it has been sent all.
        let _ = raw.try_send(head.as_bytes()).await;
        raw.unchecked_answer(false).await.expect(status);
    }
}

/// Thousands of tiny headers are few bytes on their way and many in memory.
#[tokio::test]
async fn a_request_has_a_hundred_headers_at_most() {
    let stack = Stack::start().await;
    for protocol in ["h2", "http/1.1"] {
        let client = stack.client_with(&[protocol]);
        for (count, status) in [(80, 401), (120, 431)] {
            let mut call = client.call("GET", "/v2/");
            for n in 0..count {
                call = call.header(&format!("x-{n}"), "");
            }
            call.try_send().await.expect("an answer").expect(status);
        }
    }
}

#[tokio::test]
async fn a_header_block_over_16_kib_is_refused_over_http2() {
    let stack = Stack::start().await;
    let http2 = stack.client_with(&["h2"]);
    http2.call("GET", "/v2/").header("x-long", "x".repeat(15 * 1024)).send().await.expect(401);
    let call = http2.call("GET", "/healthz").header("x-long", "x".repeat(17 * 1024));
    let answer = call.try_send().await;
    // A client library may notice by itself that the server takes no such block.
    assert!(answer.is_none_or(|answer| answer.status.as_u16() == 431));
    http2.call("GET", "/v2/").send().await.expect(401);
}

#[tokio::test]
async fn what_is_no_http_is_refused_and_the_next_client_served() {
    let stack = Stack::start().await;
    for request in [
        "nonsense\r\n\r\n",
        "GET /v2/ HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
        "GET  /v2/ HTTP/1.1\r\n\r\n",
        "POST /token HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    ] {
        let mut raw = Raw::connect(&stack.client).await;
        raw.send(request.as_bytes()).await;
        raw.unchecked_answer(false).await.expect(400);
        stack.client.call("GET", "/v2/").send().await.expect(401);
    }
}

/// buildkit, oras and regctl try HTTP on a port that they do not know.
#[tokio::test]
async fn plain_http_on_the_tls_port_is_told_the_origin() {
    let stack = Stack::start().await;
    for request in
        ["GET /v2/ HTTP/1.1\r\nHost: reg.test\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "G"]
    {
        let mut stream = stack.client.connect_plain().await;
        stream.write_all(request.as_bytes()).await.expect("sending");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer}");
        assert!(answer.contains("HTTPS port: use https://reg.test\""), "{answer}");
    }
    // What begins as TLS is taken for TLS.
    let mut stream = stack.client.connect_plain().await;
    stream.write_all(b"\x16\x03\x01\x00\x10GET /v2/ HTTP/1.1\r\n\r\n").await.expect("sending");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP/"), "{answer:?}");
    stack.client.call("GET", "/v2/").send().await.expect(401);
}

#[tokio::test]
async fn requests_follow_each_other_on_one_connection() {
    let stack = Stack::start().await;
    let mut raw = Raw::connect(&stack.client).await;
    raw.send(
        b"GET /v2/ HTTP/1.1\r\nHost: reg.test\r\n\r\nHEAD /v2/ HTTP/1.1\r\nHost: reg.test\r\n\r\n",
    )
    .await;
    raw.answer("/v2/", false).await.expect(401);
    raw.answer("/v2/", true).await.expect(401);
}
