//! `/token` on the registry's origin, on its way to `auth-server`: what is passed on, when, and what
//! the logs say of it.

use harness::{
    Client, Raw, Stack,
    client::Call,
    events::Recording,
    eventually,
    stack::{Options, PASSWORD},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    task::JoinHandle,
};

/// Anybody may pull from `open`.
async fn stack() -> Stack {
    // Some take the place of auth-server, on its socket.
    let stack = Stack::with(Options { link: false, ..Options::default() }).await;
    stack.grant("anonymous", "open:pull").await;
    stack
}

fn get(stack: &Stack) -> Call {
    stack.client.call("GET", "/token?scope=repository:open:pull")
}

/// Takes the place of auth-server.
async fn instead_of_auth(stack: &mut Stack) -> UnixListener {
    stack.stop_auth().await;
    let path = stack.root().join("run/auth.sock");
    let _ = std::fs::remove_file(&path);
    UnixListener::bind(&path).expect("the socket")
}

async fn read_head(stream: &mut UnixStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("a head"));
    }
    String::from_utf8(head).expect("text").to_lowercase()
}

/// In the place of auth-server: the heads of the token requests that come first, in order.
async fn token_heads<const N: usize>(stack: &mut Stack) -> JoinHandle<[String; N]> {
    let listener = instead_of_auth(stack).await;
    tokio::spawn(async move {
        let mut heads = Vec::new();
        while heads.len() < N {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let head = read_head(&mut stream).await;
            let body = "{\"errors\":[{\"code\":\"UNKNOWN\",\"message\":\"none\"}]}";
            let answer = format!(
                "HTTP/1.1 404 Not Found\r\ncontent-type: application/json\r\n\
                 content-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            stream.write_all(answer.as_bytes()).await.expect("answering");
            heads.extend(head.contains(" /token").then_some(head));
        }
        heads.try_into().expect("as many as that")
    })
}

#[tokio::test]
async fn auth_server_is_told_the_address_of_the_peer_and_no_other() {
    let mut stack = stack().await;
    let seen = token_heads(&mut stack).await;
    let mut raw = Raw::connect(&stack.client).await;
    let headers = [
        ("X-Berth-Client-Address", "198.51.100.7"),
        ("X-Forwarded-For", "198.51.100.8"),
        ("X-Request-Id", "0000000000000007"),
        ("Cookie", "a=b"),
        ("User-Agent", "docker/28"),
    ];
    raw.head("GET /token?scope=repository:open:pull", &headers).await;
    let [head] = seen.await.expect("a request");
    assert!(head.starts_with("get /token?scope=repository:open:pull http/1.1\r\n"), "{head}");
    let addresses: Vec<_> =
        head.lines().filter(|line| line.starts_with("x-berth-client-address")).collect();
    assert_eq!(addresses, ["x-berth-client-address: 127.0.0.1"]);
    for strange in ["198.51.100", "0000000000000007", "cookie"] {
        assert!(!head.contains(strange), "{head}");
    }
    assert!(head.contains("user-agent: docker/28\r\n"));
}

/// Connections of the private socket are few, and half a request costs its sender nothing.
#[tokio::test]
async fn half_a_request_is_not_passed_on() {
    let mut stack = stack().await;
    let begin = async |client: &Client| {
        let mut raw = Raw::connect(client).await;
        raw.head(
            "POST /token",
            &[("Content-Type", "application/x-www-form-urlencoded"), ("Content-Length", "12")],
        )
        .await;
        raw.send(b"scope=").await;
        raw
    };
    let mut half = begin(&stack.client).await;
    // Another, begun later, is answered, and so is the first once it is whole.
    get(&stack).send().await.expect(200);
    half.send(b"a:b:cd").await;
    assert_eq!(half.answer("/token", false).await.status, 200);
    let mut waiting = begin(&stack.client).await;
    let heads = token_heads(&mut stack).await;
    get(&stack).send().await.expect(404);
    waiting.send(b"a:b:cd").await;
    let [first, second] = heads.await.expect("two requests");
    assert!(first.starts_with("get") && second.starts_with("post"), "{first}{second}");
}

/// What a client or the registry's log tells about a request is found in auth-server's log too.
#[tokio::test]
async fn both_servers_log_a_request_under_the_id_that_its_answer_shows() {
    let recording = Recording::start();
    let auth = "[public]\nlisten = '127.0.0.1:0'\ncertificate = 'server.pem'\nkey = 'server.key'\n"
        .to_owned();
    let stack = Stack::with(Options { auth, ..Options::default() }).await;
    stack.grant("andrew", "a:pull").await;
    for path in ["/token", "/v2/a/tags/list"] {
        let answer = stack.client.call("GET", path).basic("andrew", PASSWORD).send().await;
        let id = format!("request={} ", answer.header("x-request-id"));
        let mut lines = Vec::new();
        eventually("both have written their line", async || {
            lines.extend(recording.take().into_iter().filter(|event| event.text.contains(&id)));
            (lines.len() == 2).then_some(())
        })
        .await;
        for line in ["GET /token ".to_owned(), format!("GET {path} ")] {
            let line = format!("message={line}");
            assert!(lines.iter().any(|event| event.text.contains(&line)), "{line} in {lines:?}");
        }
    }
    let chosen = "00000000000000a7";
    for (who, client) in [("registry", &stack.client), ("auth", &stack.auth_public_client())] {
        let answer = client.call("GET", "/token").header("x-request-id", chosen).send().await;
        assert_ne!(answer.header("x-request-id"), chosen, "{who} lets a client choose");
    }
}

/// The log does not say of a request that it was answered when it was not.
#[tokio::test]
async fn a_client_that_leaves_before_its_answer_is_logged_without_a_status() {
    let recording = Recording::start();
    let mut stack = stack().await;
    let listener = instead_of_auth(&mut stack).await;
    let call = stack.client_with(&["h2"]).call("POST", "/token").body("scope=a");
    let mut unanswered = Vec::new();
    let reached = async {
        loop {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let head = read_head(&mut stream).await;
            unanswered.push(stream);
            if head.contains(" /token") {
                return;
            }
        }
    };
    tokio::select! {
        answer = call.send() => panic!("nobody answers: {answer:?}"),
        () = reached => {}
    }
    let left = eventually("its line is written", async || {
        let mut lines = recording.take().into_iter();
        let is_its =
            |text: &str| text.contains("POST /token ") && text.contains("received_bytes=7 ");
        lines.find(|event| is_its(&event.text))
    })
    .await;
    assert!(!left.text.contains("status="), "{left:?}");
}
