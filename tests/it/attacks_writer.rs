//! Attacks: what holds the one writer of the database.

use std::time::Duration;

use bytes::Bytes;
use harness::{
    H2, Raw, Stack,
    events::Recording,
    eventually,
    h2::kind,
    image::{Image, MANIFEST, digest_of, put_manifest, start_upload},
    upload::commit_target,
};
use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};

/// RFC 9113 §7.
const CANCEL: [u8; 4] = 8_u32.to_be_bytes();

/// The registry's database, held so that nothing is written until this is let go.
pub(crate) struct Held(SqliteConnection);

impl Held {
    pub(crate) async fn hold(stack: &Stack) -> Self {
        let path = stack.root().join("registry/registry.db");
        let options =
            SqliteConnectOptions::new().filename(path).busy_timeout(Duration::from_secs(30));
        let mut connection = SqliteConnection::connect_with(&options).await.expect("the database");
        sqlx::query("BEGIN IMMEDIATE").execute(&mut connection).await.expect("holding it");
        Self(connection)
    }

    async fn let_go(mut self) {
        sqlx::query("ROLLBACK").execute(&mut self.0).await.expect("letting go");
        self.0.close().await.expect("closing");
    }
}

/// Waits until the log says that the request for `target` ended, as it does when a client leaves.
async fn ended(recording: &Recording, target: &str) {
    let mut events = Vec::new();
    eventually(target, async || {
        events.extend(recording.take());
        events.iter().any(|event| event.text.contains(target)).then_some(())
    })
    .await;
}

/// A request that is there to the last byte, of a client that then leaves.
async fn ask_and_leave(stack: &Stack, token: &str, target: &str, body: &Bytes) {
    let recording = Recording::start();
    let bearer = format!("Bearer {token}");
    let length = body.len().to_string();
    let headers = [
        ("Authorization", bearer.as_str()),
        ("Content-Type", MANIFEST),
        ("Content-Length", length.as_str()),
        ("Expect", "100-continue"),
    ];
    let mut connection = Raw::connect(&stack.client).await;
    connection.head(&format!("PUT {target}"), &headers).await;
    // The request has begun.
    assert_eq!(connection.unchecked_answer(false).await.status.as_u16(), 100);
    connection.send(body).await;
    connection.leave().await;
    let path = target.split('?').next().expect("a path");
    ended(&recording, path).await;
}

#[tokio::test]
async fn what_a_gone_client_asked_for_is_never_begun() {
    let stack = Stack::start().await;
    let token = stack.full_token("app").await;
    let image = Image::new("left");
    image.push(&stack.client, &token, "app", "there").await;
    let held = Held::hold(&stack).await;

    ask_and_leave(&stack, &token, "/v2/app/manifests/left-by-http1", &image.manifest).await;

    let recording = Recording::start();
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str()), ("content-type", MANIFEST)];
    let mut connection = H2::connect(&stack.client_with(&["h2"]), 65_535).await;
    let target = "/v2/app/manifests/left-by-http2";
    let stream = connection.request("PUT", target, &headers, false).await.expect("sending");
    connection.data(stream, &image.manifest, true).await.expect("sending");
    connection.frame(kind::PING, 0, 0, &[0; 8]).await.expect("sending");
    while connection.next().await.expect("the answer to a PING").kind != kind::PING {}
    connection.frame(kind::RST_STREAM, 0, stream, &CANCEL).await.expect("sending");
    ended(&recording, target).await;

    held.let_go().await;
    // The queue is in order: what was asked before this would be there by now.
    let bytes = image.manifest.clone();
    put_manifest(&stack.client, &token, "app", "stays", MANIFEST, bytes).await.expect(201);
    for left in ["left-by-http1", "left-by-http2"] {
        let target = format!("/v2/app/manifests/{left}");
        stack.client.get(&token, &target).await.expect_error(404, "MANIFEST_UNKNOWN");
    }
}

#[tokio::test]
async fn a_blob_whose_last_byte_has_come_is_made_though_its_client_left() {
    let stack = Stack::start().await;
    let token = stack.full_token("app").await;
    let location = start_upload(&stack.client, &token, "app").await;
    let blob = Bytes::from_static(b"all of it");
    let digest = digest_of(&blob);
    let held = Held::hold(&stack).await;
    ask_and_leave(&stack, &token, &commit_target(&location, &digest), &blob).await;
    held.let_go().await;
    eventually("the blob is there", async || {
        let target = format!("/v2/app/blobs/{digest}");
        let answer = stack.client.call("HEAD", target).bearer(&token).send().await;
        answer.status.is_success().then_some(())
    })
    .await;
}
