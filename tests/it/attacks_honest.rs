//! What resembles an attack and is none: clients that mean well, in small steps, slowly, or many
//! behind one address. The limits that end attacks must let them come to their end.

use std::time::Duration;

use harness::{
    Client, H2, Raw, Stack,
    client::HOST,
    h2::kind,
    image::{Image, digest_of, push_blob},
    stack::Options,
    upload::content,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinSet,
    time::sleep,
};

/// A stack that gives up whatever stands still for two seconds, a token for `app`, and a blob there.
async fn with_blob(length: usize) -> (Stack, String, Vec<u8>) {
    let registry_limits = "body_idle_secs_max = 2".to_owned();
    let stack = Stack::with(Options { registry_limits, ..Options::default() }).await;
    let token = stack.forged_token("andrew", &["repository:app:*"]);
    let bytes = content(length, 1);
    push_blob(&stack.client, &token, "app", &bytes).await;
    (stack, token, bytes.to_vec())
}

/// Reads what `streams` of a connection answer, and allows each the next 16 KiB when it has got
/// the last, and not before it has rested.
async fn read_in_steps(connection: &mut H2, streams: &[u32], length: usize) -> Vec<Vec<u8>> {
    const STEP: usize = 16 * 1024;
    const REST: Duration = Duration::from_millis(100);
    let mut bodies = vec![Vec::new(); streams.len()];
    while bodies.iter().any(|body| body.len() < length) {
        sleep(REST).await;
        let wanted = bodies[0].len() + STEP;
        for stream in streams {
            connection.open_window(*stream, STEP as u32).await.expect("a window");
            connection.open_window(0, STEP as u32).await.expect("a window");
        }
        while bodies.iter().any(|body| body.len() < wanted.min(length)) {
            let frame = connection.next().await.expect("the connection stays");
            connection.answer_question(&frame).await.expect("an answer");
            match frame.kind {
                kind::DATA => {
                    let number = streams.iter().position(|stream| *stream == frame.stream);
                    bodies[number.expect("a stream of ours")].extend(frame.payload);
                }
                kind => assert!(![kind::RST_STREAM, kind::GOAWAY].contains(&kind), "{frame:?}"),
            }
        }
    }
    bodies
}

#[tokio::test]
async fn small_windows_that_are_opened_steadily_carry_all_of_a_blob() {
    let (stack, token, bytes) = with_blob(400_000).await;
    let client = stack.client_with(&["h2"]);
    let mut connection = H2::connect(&client, 0).await;
    let bearer = format!("Bearer {token}");
    let target = format!("/v2/app/blobs/{}", digest_of(&bytes));
    let mut streams = Vec::new();
    for _ in 0..8 {
        let headers = [("authorization", bearer.as_str())];
        streams.push(connection.request("GET", &target, &headers, true).await.expect("a stream"));
    }
    for body in read_in_steps(&mut connection, &streams, bytes.len()).await {
        assert!(body == bytes, "what came is what was pushed");
    }
}

/// Gets a blob over HTTP/1.1, a tenth of what it may read in a second at a time.
async fn read_slowly(client: Client, head: String, bytes_per_sec: usize) -> Vec<u8> {
    let mut stream = client.try_connect_narrow().await.expect("connecting");
    stream.write_all(head.as_bytes()).await.expect("asking");
    stream.flush().await.expect("asking");
    let mut piece = vec![0; bytes_per_sec / 10];
    let mut answer = Vec::new();
    loop {
        let count = stream.read(&mut piece).await.expect("reading");
        if count == 0 {
            return answer;
        }
        answer.extend(&piece[..count]);
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn slow_and_steady_pulls_come_to_their_end() {
    let (stack, token, bytes) = with_blob(1_000_000).await;
    let target = format!("/v2/app/blobs/{}", digest_of(&bytes));
    let head = format!(
        "GET {target} HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {token}\r\n\
         Connection: close\r\n\r\n"
    );
    let mut pulls = JoinSet::new();
    for _ in 0..20 {
        // For longer than anything may stand still.
        pulls.spawn(read_slowly(stack.client.clone(), head.clone(), 200_000));
    }
    while let Some(answer) = pulls.join_next().await {
        let answer = answer.expect("a pull");
        assert!(answer.starts_with(b"HTTP/1.1 200"));
        assert!(answer.ends_with(&bytes), "{} bytes came", answer.len());
    }
}

#[tokio::test]
async fn two_hundred_connections_of_one_address_are_kept_and_served() {
    let stack = Stack::start().await;
    let token = stack.forged_token("andrew", &["repository:app:*"]);
    let image = Image::new("one");
    image.push(&stack.client, &token, "app", "v1").await;
    let bearer = format!("Bearer {token}");
    let mut kubelets = Vec::new();
    for _ in 0..200 {
        kubelets.push(Raw::connect(&stack.client).await);
    }
    let target = "/v2/app/manifests/v1";
    for _ in 0..3 {
        for kubelet in &mut kubelets {
            kubelet.head(&format!("GET {target}"), &[("Authorization", &bearer)]).await;
        }
        for kubelet in &mut kubelets {
            let answer = kubelet.answer(target, false).await.expect(200);
            assert_eq!(answer.body, image.manifest);
        }
    }
}
