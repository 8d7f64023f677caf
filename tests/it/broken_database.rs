//! The connection to PostgreSQL breaks at each message of each operation, before it came through, behind it and
//! within its answer: nothing is half done, and what was refused can be done again.
//!
//! `tests/interop/postgres.sh` starts the server, and runs this.

use std::time::Duration;

use bytes::Bytes;
use harness::{
    Stack,
    client::Response,
    eventually,
    image::{INDEX, Image, MANIFEST, digest_of, push_blob, put_manifest, start_upload},
    postgres::Proxy,
    stack::Options,
    upload::{commit, patch},
    wire::{Break, Wire},
};
use serde_json::json;

use crate::collection;

/// More messages than any operation sends: a collection looks at each of 256 folders.
const MESSAGES_MAX: u64 = 5000;

/// Messages that are broken one by one; of those behind, some are.
const ONE_BY_ONE: u64 = 50;

/// Behind every grace period.
const LONG: Duration = Duration::from_secs(48 * 60 * 60);

/// What a client does that reads or writes rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Begin,
    Append,
    Commit,
    PushWhole,
    Cancel,
    Mount,
    PutManifest,
    PutIndex,
    MoveTag,
    DeleteTag,
    DeleteManifest,
    DeleteBlob,
    PullByTag,
    ListTags,
    Collect,
}

impl Operation {
    const ALL: [Self; 15] = [
        Self::Begin,
        Self::Append,
        Self::Commit,
        Self::PushWhole,
        Self::Cancel,
        Self::Mount,
        Self::PutManifest,
        Self::PutIndex,
        Self::MoveTag,
        Self::DeleteTag,
        Self::DeleteManifest,
        Self::DeleteBlob,
        Self::PullByTag,
        Self::ListTags,
        Self::Collect,
    ];
}

/// A registry behind a connection that breaks.
struct World {
    stack: Stack,
    proxy: Proxy,
}

/// One try of an operation, with content of its own.
struct Try<'w> {
    world: &'w World,
    operation: Operation,
    blob: Bytes,
    image: Image,
    /// Of an upload session.
    location: String,
}

impl World {
    async fn start() -> Self {
        Self::with("").await
    }

    /// With more settings for the database.
    async fn with(settings: &str) -> Self {
        let proxy = Proxy::start().await;
        let database = Some(proxy.table().await + settings);
        let stack = Stack::with(Options { database, ..Options::default() }).await;
        Self { stack, proxy }
    }

    /// A token, which outlives no collection.
    fn token(&self) -> String {
        self.stack.forged_token("andrew", &["repository:app:*", "repository:other:*"])
    }

    /// Until the connections that are left are whole.
    async fn is_ready(&self) {
        self.stack.wait_until_ready().await;
    }
}

impl<'w> Try<'w> {
    /// Makes what the operation needs.
    async fn new(world: &'w World, operation: Operation, mark: &str) -> Try<'w> {
        let (client, token) = (&world.stack.client, &world.token());
        let (blob, image) = (Bytes::from(format!("a blob for {mark}")), Image::new(mark));
        let mut made = Self { world, operation, blob, image, location: String::new() };
        match operation {
            Operation::Begin | Operation::PushWhole => {}
            Operation::Append | Operation::Commit | Operation::Cancel => {
                made.location = start_upload(client, token, "app").await;
                patch(client, token, &made.location, None, made.half()).await.expect(202);
            }
            Operation::Mount => drop(push_blob(client, token, "other", &made.blob).await),
            Operation::DeleteBlob => drop(push_blob(client, token, "app", &made.blob).await),
            Operation::PutManifest => {
                push_blob(client, token, "app", &made.image.config).await;
                push_blob(client, token, "app", &made.image.layer).await;
            }
            Operation::MoveTag => {
                Image::new("the one before").push(client, token, "app", "tag").await;
                made.image.push(client, token, "app", mark).await;
            }
            Operation::PutIndex
            | Operation::DeleteTag
            | Operation::DeleteManifest
            | Operation::PullByTag
            | Operation::ListTags => drop(made.image.push(client, token, "app", "tag").await),
            Operation::Collect => {
                push_blob(client, token, "app", &made.blob).await;
                made.image.push(client, token, "app", "kept").await;
                world.stack.clock.advance(LONG);
            }
        }
        made
    }

    fn half(&self) -> Bytes {
        self.blob.slice(..self.blob.len() / 2)
    }

    fn rest(&self) -> Bytes {
        self.blob.slice(self.blob.len() / 2..)
    }

    fn index(&self) -> Bytes {
        let child = json!({
            "mediaType": MANIFEST,
            "digest": self.image.digest().as_str(),
            "size": self.image.manifest.len(),
        });
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [child] });
        index.to_string().into()
    }

    async fn put(&self, reference: &str, media_type: &str, bytes: Bytes) -> Response {
        let (stack, token) = (&self.world.stack, &self.world.token());
        put_manifest(&stack.client, token, "app", reference, media_type, bytes).await
    }

    async fn call(&self, method: &str, target: String) -> Response {
        let (stack, token) = (&self.world.stack, &self.world.token());
        stack.client.call(method, target).bearer(token).send().await
    }

    /// Does it, and says whether it was done.
    async fn act(&self) -> bool {
        let (stack, token) = (&self.world.stack, &self.world.token());
        let client = &stack.client;
        let blob = digest_of(&self.blob);
        let answer = match self.operation {
            Operation::Begin => self.call("POST", "/v2/app/blobs/uploads/".to_owned()).await,
            Operation::Append => patch(client, token, &self.location, None, self.rest()).await,
            Operation::Commit => commit(client, token, &self.location, &blob, self.rest()).await,
            Operation::PushWhole => {
                let target = format!("/v2/app/blobs/uploads/?digest={blob}");
                client.call("POST", target).bearer(token).body(self.blob.clone()).send().await
            }
            Operation::Cancel => self.call("DELETE", self.location.clone()).await,
            Operation::Mount => {
                let target = format!("/v2/app/blobs/uploads/?mount={blob}&from=other");
                self.call("POST", target).await
            }
            Operation::PutManifest | Operation::MoveTag => {
                self.put("tag", MANIFEST, self.image.manifest.clone()).await
            }
            Operation::PutIndex => self.put("tag", INDEX, self.index()).await,
            Operation::DeleteTag => self.call("DELETE", "/v2/app/manifests/tag".to_owned()).await,
            Operation::DeleteManifest => {
                self.call("DELETE", format!("/v2/app/manifests/{}", self.image.digest())).await
            }
            Operation::DeleteBlob => self.call("DELETE", format!("/v2/app/blobs/{blob}")).await,
            Operation::PullByTag => self.call("GET", "/v2/app/manifests/tag".to_owned()).await,
            Operation::ListTags => self.call("GET", "/v2/app/tags/list".to_owned()).await,
            Operation::Collect => {
                return collection::try_collect(&self.world.stack).await.is_some();
            }
        };
        let status = answer.status.as_u16();
        assert!(answer.status.is_success() || status == 503, "{:?}: {status}", self.operation);
        assert!(status != 503 || answer.find_header("retry-after").is_some());
        answer.status.is_success()
    }

    /// What a client does that was refused, or got no answer.
    async fn repeat(&self) {
        let (stack, token) = (&self.world.stack, &self.world.token());
        match self.operation {
            Operation::Append => {
                let progress = self.call("GET", self.location.clone()).await.expect(204);
                // The whole chunk counts, or nothing of it.
                let half = format!("0-{}", self.half().len() - 1);
                if progress.header("range") == half {
                    assert!(self.act().await);
                }
            }
            Operation::Commit => match self.call("GET", self.location.clone()).await {
                // It was done, and the answer did not come.
                gone if gone.status.as_u16() == 404 => {}
                progress => {
                    let blob = digest_of(&self.blob);
                    let full = format!("0-{}", self.blob.len() - 1);
                    let has_all = progress.expect(204).header("range") == full;
                    let rest = if has_all { Bytes::new() } else { self.rest() };
                    commit(&stack.client, token, &self.location, &blob, rest).await.expect(201);
                }
            },
            Operation::Cancel => {
                let status = self.call("DELETE", self.location.clone()).await.status.as_u16();
                assert!([204, 404].contains(&status), "{status}");
            }
            Operation::DeleteTag => drop(self.call("DELETE", "/v2/app/manifests/tag".into()).await),
            Operation::DeleteManifest => {
                let target = format!("/v2/app/manifests/{}", self.image.digest());
                drop(self.call("DELETE", target).await);
            }
            Operation::DeleteBlob => {
                let target = format!("/v2/app/blobs/{}", digest_of(&self.blob));
                drop(self.call("DELETE", target).await);
            }
            _ => assert!(self.act().await, "{:?} again", self.operation),
        }
    }

    /// What holds when it was done.
    async fn is_done(&self, what: &str) {
        let manifest = "/v2/app/manifests/tag".to_owned();
        let blob = format!("/v2/app/blobs/{}", digest_of(&self.blob));
        let (target, expected) = match self.operation {
            Operation::Begin | Operation::Cancel => return,
            Operation::Append => {
                let progress = self.call("GET", self.location.clone()).await.expect(204);
                assert_eq!(
                    progress.header("range"),
                    format!("0-{}", self.blob.len() - 1),
                    "{what}"
                );
                return;
            }
            Operation::Commit | Operation::PushWhole | Operation::Mount => (blob, Some(&self.blob)),
            Operation::DeleteBlob => (blob, None),
            Operation::DeleteTag | Operation::DeleteManifest => (manifest, None),
            Operation::PutIndex => (manifest, Some(&self.index())),
            Operation::PutManifest
            | Operation::MoveTag
            | Operation::PullByTag
            | Operation::ListTags => (manifest, Some(&self.image.manifest)),
            Operation::Collect => ("/v2/app/manifests/kept".into(), Some(&self.image.manifest)),
        };
        let found = self.call("GET", target).await;
        match expected {
            Some(bytes) => assert_eq!(found.expect(200).body, bytes, "{what}"),
            None => drop(found.expect(404)),
        }
    }
}

/// What became of a try.
#[derive(Debug, Clone, Copy)]
struct Tried {
    /// Whether it had so many messages.
    has_broken: bool,
    /// Whether its client was told to come again.
    was_refused: bool,
}

/// Breaks the operation at its `number`-th message, if it has so many.
async fn break_at(world: &World, operation: Operation, number: u64, how: Break) -> Tried {
    let what = format!("{operation:?}, message {number}, {how:?}");
    let made = Try::new(world, operation, &format!("{operation:?}-{number}-{how:?}")).await;
    world.proxy.break_at(number, how, false);
    let was_done = made.act().await;
    let has_broken = world.proxy.has_broken();
    assert!(has_broken || was_done, "{what}");
    world.is_ready().await;
    if !was_done {
        made.repeat().await;
    }
    made.is_done(&what).await;
    Tried { has_broken, was_refused: !was_done }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL, which tests/interop/postgres.sh starts"]
async fn nothing_is_half_done_wherever_the_connection_to_the_database_breaks() {
    let world = World::start().await;
    for operation in Operation::ALL {
        for how in [Break::Before, Break::Behind, Break::Within] {
            let (mut number, mut refused) = (1, 0);
            loop {
                let tried = break_at(&world, operation, number, how).await;
                refused += u64::from(tried.was_refused);
                if !tried.has_broken {
                    break;
                }
                number += if number < ONE_BY_ONE { 1 } else { 101 };
                assert!(number < MESSAGES_MAX, "{operation:?} sends no end of messages");
            }
            assert!(refused > 1, "{operation:?} was hardly broken");
        }
    }
    collection::nothing_is_left(&world.stack, LONG).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL, which tests/interop/postgres.sh starts"]
async fn while_the_database_is_away_clients_are_told_to_come_again_and_then_all_goes_on() {
    let world = World::with("statement_secs_max = 1\n").await;
    let (client, token) = (&world.stack.client, &world.token());
    let image = Image::new("before");
    image.push(client, token, "app", "v1").await;
    let by_tag = "/v2/app/manifests/v1".to_owned();
    let by_digest = format!("/v2/app/manifests/{}", image.digest());
    for (how, away) in [("stopped", Wire::stop as fn(&Wire)), ("cut off", Wire::cut)] {
        client.get(token, &by_digest).await.expect(200);
        away(&world.proxy);
        // What was asked for a moment ago is known yet.
        client.get(token, &by_digest).await.expect(200);
        for (method, target) in [("GET", &by_tag), ("POST", &"/v2/app/blobs/uploads/".to_owned())] {
            let refused = client.call(method, target).bearer(token).send().await.expect(503);
            assert!(refused.find_header("retry-after").is_some(), "{method}, {how}");
        }
        // What it said a moment ago, it says again.
        eventually("the registry is not ready", async || {
            let ready = client.call("GET", "/readyz").send().await;
            (!ready.status.is_success()).then_some(())
        })
        .await;
        world.proxy.open();
        world.is_ready().await;
        eventually("a tag is found again", async || {
            client.get(token, &by_tag).await.status.is_success().then_some(())
        })
        .await;
        Image::new(how).push(client, token, "app", "v2").await;
        assert_eq!(client.get(token, "/v2/app/manifests/v2").await.body, Image::new(how).manifest);
    }
}
