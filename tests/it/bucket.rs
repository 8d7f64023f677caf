//! A registry whose objects are in a bucket: what goes wrong on the way there, what is refused at the start,
//! and what its clients may hold.
//!
//! `tests/interop/s3.sh` starts the server, and runs this.

use std::{fs, time::Duration};

use bytes::Bytes;
use harness::{
    Stack,
    client::Response,
    eventually,
    image::{Image, digest_of, push_blob, start_upload},
    raw::Raw,
    s3::{self, Place, Proxy},
    stack::Options,
    upload::{commit, content, patch},
    wire::Break,
};
use registry_server::{config::Config, server::Server};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::collection;

/// The least that S3 takes for a part, which the tests' settings take.
const PART: usize = 5 << 20;

/// Behind every grace period, and behind the time for which deleted objects are kept.
const LONG: Duration = Duration::from_secs(48 * 60 * 60);

/// Requests that are broken one by one, at most.
const REQUESTS_MAX: u64 = 60;

const SCOPES: [&str; 2] = ["repository:app:*", "repository:other:*"];

/// What a client or the server does that asks the store for something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    /// Of parts and a rest, in one request.
    PushLarge,
    /// The same in three.
    PushChunks,
    /// Less than a part, in one.
    PushSmall,
    /// Ends a session that holds parts and a rest.
    Cancel,
    Pull,
    Collect,
}

impl Operation {
    const ALL: [Self; 6] = [
        Self::PushLarge,
        Self::PushChunks,
        Self::PushSmall,
        Self::Cancel,
        Self::Pull,
        Self::Collect,
    ];

    fn content(self, number: u64) -> Bytes {
        let length = match self {
            Self::PushSmall => 1000,
            Self::PushLarge | Self::PushChunks | Self::Cancel => 2 * PART + 1000,
            Self::Pull | Self::Collect => 300_000,
        };
        content(length, number)
    }
}

struct World {
    stack: Stack,
    proxy: Proxy,
}

impl World {
    async fn start() -> Self {
        let proxy = Proxy::start().await;
        let store = Some(Some(proxy.place()));
        Self { stack: Stack::with(Options { store, ..Options::default() }).await, proxy }
    }

    fn token(&self) -> String {
        self.stack.forged_token("andrew", &SCOPES)
    }

    async fn call(&self, method: &str, target: &str) -> Response {
        self.stack.client.call(method, target).bearer(&self.token()).send().await
    }

    /// Does it, and says whether it was done. A push that was refused goes on where its session stands.
    async fn act(&self, operation: Operation, bytes: &Bytes, location: &mut String) -> bool {
        let (client, token) = (&self.stack.client, &self.token());
        let digest = digest_of(bytes);
        let answer = match operation {
            Operation::PushSmall | Operation::PushLarge => {
                let target = format!("/v2/app/blobs/uploads/?digest={digest}");
                client.call("POST", target).bearer(token).body(bytes.clone()).send().await
            }
            Operation::PushChunks => return self.push_chunks(bytes, location).await,
            Operation::Cancel => self.call("DELETE", location).await,
            Operation::Pull => self.call("GET", &format!("/v2/app/blobs/{digest}")).await,
            Operation::Collect => {
                return collection::try_collect(&self.stack)
                    .await
                    .is_some_and(|it| it.problems == 0);
            }
        };
        let status = answer.status.as_u16();
        assert!(answer.status.is_success() || status == 503, "{operation:?}: {status}");
        assert!(status != 503 || answer.find_header("retry-after").is_some());
        assert!(operation != Operation::Pull || status == 503 || answer.body == bytes);
        answer.status.is_success()
    }

    async fn push_chunks(&self, bytes: &Bytes, location: &mut String) -> bool {
        let (client, token) = (&self.stack.client, &self.token());
        if location.is_empty() {
            *location = start_upload(client, token, "app").await;
        }
        for end in [PART - 1, PART + 500_000] {
            let progress = self.call("GET", location).await;
            if progress.status.as_u16() == 404 {
                // It could not go on, and its client begins again.
                location.clear();
                return false;
            }
            let range = progress.expect(204).header("range").to_owned();
            let held = if range == "0-0" { 0 } else { held(&range) };
            if held < end {
                let chunk = bytes.slice(held..end);
                let range = format!("{held}-{}", end - 1);
                match patch(client, token, location, Some(&range), chunk).await.status.as_u16() {
                    202 => {}
                    503 => return false,
                    404 => {
                        location.clear();
                        return false;
                    }
                    other => panic!("PATCH: {other}"),
                }
            }
        }
        let progress = self.call("GET", location).await;
        if progress.status.as_u16() == 404 {
            location.clear();
            return false;
        }
        let held = held(progress.expect(204).header("range"));
        let rest = bytes.slice(held.min(bytes.len())..);
        match commit(client, token, location, &digest_of(bytes), rest).await.status.as_u16() {
            201 => true,
            503 => false,
            404 => {
                location.clear();
                false
            }
            other => panic!("PUT: {other}"),
        }
    }

    /// Makes what the operation needs.
    async fn prepare(&self, operation: Operation, bytes: &Bytes) -> String {
        let (client, token) = (&self.stack.client, &self.token());
        match operation {
            Operation::PushSmall | Operation::PushLarge | Operation::PushChunks => String::new(),
            Operation::Cancel => {
                let location = start_upload(client, token, "app").await;
                patch(client, token, &location, None, bytes.clone()).await.expect(202);
                location
            }
            Operation::Pull => {
                push_blob(client, token, "app", bytes).await;
                String::new()
            }
            Operation::Collect => {
                push_blob(client, token, "app", bytes).await;
                let location = start_upload(client, token, "app").await;
                patch(client, token, &location, None, content(PART + 1, 1)).await.expect(202);
                self.stack.clock.advance(LONG);
                String::new()
            }
        }
    }
}

/// How many bytes there are by the range that a session tells.
fn held(range: &str) -> usize {
    range.strip_prefix("0-").and_then(|last| last.parse::<usize>().ok()).map_or(0, |last| last + 1)
}

/// Breaks the operation at its `number`-th request. Whether it has so many, and whether it was refused.
async fn break_at(
    world: &World,
    operation: Operation,
    number: u64,
    how: Break,
    lasts: bool,
) -> (bool, bool) {
    let what = format!("{operation:?}, request {number}, {how:?}, lasts: {lasts}");
    let seed = number * 8 + how as u64 * 2 + u64::from(lasts);
    let bytes = operation.content(seed);
    let mut location = world.prepare(operation, &bytes).await;
    world.proxy.break_at(number, how, lasts);
    let was_done = world.act(operation, &bytes, &mut location).await;
    let has_broken = world.proxy.has_broken();
    assert!(has_broken || was_done, "{what}");
    if !was_done {
        let mut tries = 0;
        while operation != Operation::Cancel && !world.act(operation, &bytes, &mut location).await {
            tries += 1;
            assert!(tries < 3, "{what}");
        }
    }
    let target = format!("/v2/app/blobs/{}", digest_of(&bytes));
    match operation {
        Operation::PushSmall | Operation::PushLarge | Operation::PushChunks => {
            assert!(world.call("GET", &target).await.expect(200).body == bytes, "{what}");
        }
        Operation::Collect => drop(world.call("GET", &target).await.expect(404)),
        Operation::Pull | Operation::Cancel => {}
    }
    (has_broken, !was_done)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs an S3 server, which tests/interop/s3.sh starts"]
async fn nothing_is_half_done_wherever_the_connection_to_the_store_breaks() {
    let world = World::start().await;
    for operation in Operation::ALL {
        for how in [Break::Before, Break::Behind, Break::Within] {
            // Where it lasts, that is one break as good as any.
            for lasts in [false, true].into_iter().take(if how == Break::Before { 2 } else { 1 }) {
                let (mut number, mut refused) = (1, 0);
                loop {
                    let (has_broken, was_refused) =
                        break_at(&world, operation, number, how, lasts).await;
                    refused += u64::from(was_refused);
                    if !has_broken {
                        break;
                    }
                    number += 1;
                    assert!(number < REQUESTS_MAX, "{operation:?} sends no end of requests");
                }
                // Where it breaks once, the same request is made again.
                let is_hard = lasts && operation != Operation::Cancel;
                assert!(refused > 0 || !is_hard, "{operation:?} was never refused");
            }
        }
    }
    collection::nothing_is_left(&world.stack, LONG).await;
}

/// So that they cannot creep up: each is some milliseconds, and may be paid for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs an S3 server, which tests/interop/s3.sh starts"]
async fn no_operation_asks_the_store_more_often_than_it_did() {
    let world = World::start().await;
    let count = async |operation: Operation, seed: u64| {
        let bytes = operation.content(seed);
        let mut location = world.prepare(operation, &bytes).await;
        let before = world.proxy.round_trips();
        assert!(world.act(operation, &bytes, &mut location).await);
        (world.proxy.round_trips() - before, bytes)
    };
    let (small, bytes) = count(Operation::PushSmall, 1).await;
    assert_eq!(small, 1, "the object");
    assert_eq!(count(Operation::PushLarge, 2).await.0, 5, "begin, three parts, complete");
    // The first chunk is less than a part, and read again with the second.
    let chunks = count(Operation::PushChunks, 3).await.0;
    // A tail; begin, the tail again, a part, a tail; delete the first, the tail again, two parts, complete.
    // Behind that what is left is deleted, and whose bucket it is is asked.
    assert!((10..=12).contains(&chunks), "{chunks}");
    assert_eq!(count(Operation::Pull, 4).await.0, 1, "the object");
    let blob = format!("/v2/app/blobs/{}", digest_of(&bytes));
    for expected in [1, 0] {
        let before = world.proxy.round_trips();
        world.call("HEAD", &blob).await.expect(200);
        assert_eq!(world.proxy.round_trips() - before, expected, "its length is kept");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs an S3 server, which tests/interop/s3.sh starts"]
async fn while_the_store_is_away_clients_are_told_to_come_again_and_then_all_goes_on() {
    let world = World::start().await;
    let (client, token) = (&world.stack.client, &world.token());
    let image = Image::new("before");
    image.push(client, token, "app", "v1").await;
    let (small, large) = (content(1000, 1), content(2 * PART, 2));
    push_blob(client, token, "app", &small).await;
    world.proxy.cut();
    // What lies in the rows is served.
    world.call("GET", "/v2/app/manifests/v1").await.expect(200);
    world.call("GET", "/v2/app/tags/list").await.expect(200);
    client.call("GET", "/readyz").send().await.expect(200);
    let blob = format!("/v2/app/blobs/{}", digest_of(&small));
    let away = world.call("GET", &blob).await.expect_error(503, "UNAVAILABLE");
    assert!(away.find_header("retry-after").is_some());
    let target = format!("/v2/app/blobs/uploads/?digest={}", digest_of(&large));
    let refused = client.call("POST", &target).bearer(token).body(large.clone()).send().await;
    assert!(refused.expect_error(503, "UNAVAILABLE").find_header("retry-after").is_some());
    world.proxy.open();
    assert_eq!(world.call("GET", &blob).await.expect(200).body, small);
    client.call("POST", &target).bearer(token).body(large.clone()).send().await.expect(201);
}

/// Why a registry with these settings does not start.
async fn refusal(stack: &Stack, places: &str) -> String {
    let path = stack.root().join("registry.toml");
    let before = fs::read_to_string(&path).expect("registry.toml");
    let (top, behind) = before
        .split_once("[store]")
        .unwrap_or_else(|| before.split_once("[limits]").expect("a table"));
    let limits = behind.split_once("[limits]").map_or(behind, |(_, limits)| limits);
    fs::write(&path, format!("{top}{places}\n[limits]{limits}")).expect("registry.toml");
    let config = Config::read(&path).expect("settings");
    let refused = Server::start(config, stack.clock.clone()).await;
    let error = refused.err().expect("it is not to start");
    fs::write(&path, before).expect("registry.toml");
    berth_shared::telemetry::chain(&error)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs an S3 server, which tests/interop/s3.sh starts"]
async fn what_cannot_be_right_is_refused_at_the_start_and_said_what_to_do() {
    let place = s3::place().expect("an S3 server");
    let other = s3::place().expect("an S3 server");
    let store = |place: &Place| Options { store: Some(Some(place.clone())), ..Options::default() };
    let mut stack = Stack::with(store(&place)).await;
    let token = stack.forged_token("andrew", &SCOPES);
    push_blob(&stack.client, &token, "app", &content(1000, 1)).await;
    stack.stop_registry().await;
    let mut second = Stack::with(store(&other)).await;
    second.stop_registry().await;
    let table = place.table.clone();
    let prefix = place.folder.file_name().expect("a prefix").to_string_lossy();
    let host = table.split("endpoint = '").nth(1).expect("an endpoint");
    let endpoint = host.split('\'').next().expect("an endpoint").to_owned();
    fs::write(stack.root().join("wrong"), "somebody").expect("a key");
    for (places, says) in [
        (String::new(), "put [store] back"),
        (other.table.clone(), "another registry's"),
        (table.replace("s3://", "s3://absent-"), "there is no such bucket"),
        (table.replace(&*prefix, "elsewhere"), "has no registry.json"),
        (table.replace("s3.name", "wrong"), "access_key_file"),
        (
            table.replace("secret_key_file = 's3.secret'", "secret_key_file = 'wrong'"),
            "secret_key_file",
        ),
        (table.replace("s3.name", "absent"), "absent"),
        (table.replace(&endpoint, "http://127.0.0.1:1"), "does not answer"),
        (table.replace(&endpoint, "http://192.0.2.1:9000"), "use https"),
    ] {
        let error = refusal(&stack, &places).await;
        assert!(error.contains(says), "{places}\n{error}");
    }
    // What lies there is nobody's.
    let third = s3::place().expect("an S3 server");
    fs::create_dir(&third.folder).expect("a folder");
    fs::write(third.folder.join("stranger"), "something").expect("an object");
    let mut on_disk = Stack::with(Options { store: Some(None), ..Options::default() }).await;
    third.write_key(on_disk.root());
    on_disk.stop_registry().await;
    let error = refusal(&on_disk, &third.table).await;
    assert!(error.contains("something else lies"), "{error}");
    on_disk.start_registry().await;
    push_blob(&on_disk.client, &on_disk.forged_token("andrew", &SCOPES), "app", &content(9, 1))
        .await;
    on_disk.stop_registry().await;
    let error = refusal(&on_disk, &s3::place().expect("an S3 server").table).await;
    assert!(error.contains("are on the disk"), "{error}");
    // And it starts where it was.
    stack.start_registry().await;
    let blob = format!("/v2/app/blobs/{}", digest_of(&content(1000, 1)));
    stack.client.get(&stack.forged_token("andrew", &SCOPES), blob).await.expect(200);
}

/// A part of the memory for uploads is held by those that receive; who stands still gives it back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs an S3 server, which tests/interop/s3.sh starts"]
async fn uploads_that_stand_still_keep_nobody_from_pushing() {
    const STALLED: usize = 200;
    let registry_limits = "connections_per_network_max = 1000\nuploads_per_subject_max = 32".into();
    let store = Some(s3::place());
    let stack = Stack::with(Options { store, registry_limits, ..Options::default() }).await;
    let eve = stack.forged_token("eve", &SCOPES);
    let bearer = format!("Bearer {eve}");
    let headers = [("Authorization", bearer.as_str()), ("Content-Length", "100000000")];
    let bytes = content(1 << 20, 1);
    let mut stalled = Vec::new();
    for _ in 0..STALLED {
        let location = start_upload(&stack.client, &eve, "other").await;
        let mut raw = Raw::connect(&stack.client).await;
        raw.head(&format!("PATCH {location}"), &headers).await;
        raw.send(&bytes).await;
        stalled.push(raw);
    }
    let andrew = stack.forged_token("andrew", &SCOPES);
    let good = content(3 * PART + 1, 2);
    push_blob(&stack.client, &andrew, "app", &good).await;
    let target = format!("/v2/app/blobs/{}", digest_of(&good));
    assert!(stack.client.get(&andrew, target).await.expect(200).body == good);
    // So does another of her own.
    let mine = content(PART + 1, 3);
    push_blob(&stack.client, &eve, "other", &mine).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs an S3 server, which tests/interop/s3.sh starts"]
async fn large_blobs_are_fetched_of_the_store_itself_where_the_settings_say_so() {
    let mut place = s3::place().expect("an S3 server");
    let endpoint = place.table.split("endpoint = '").nth(1).expect("an endpoint");
    let endpoint = endpoint.split('\'').next().expect("an endpoint").to_owned();
    place.table.push_str(&format!("redirect = '{endpoint}'\n"));
    let stack = Stack::with(Options { store: Some(Some(place)), ..Options::default() }).await;
    let (client, token) = (&stack.client, &stack.forged_token("andrew", &SCOPES));
    let (small, large) = (content(1000, 1), content(300_000, 2));
    push_blob(client, token, "app", &small).await;
    push_blob(client, token, "app", &large).await;
    let target = |bytes: &Bytes| format!("/v2/app/blobs/{}", digest_of(bytes));
    assert_eq!(client.get(token, target(&small)).await.expect(200).body, small);
    client.head(token, target(&large)).await.expect(200);
    let sent = client.get(token, target(&large)).await.expect(307);
    assert!(sent.header("cache-control").contains("no-store"));
    let url = sent.header("location");
    let (host, path) =
        url.strip_prefix("http://").and_then(|it| it.split_once('/')).expect("a URL");
    let mut store = TcpStream::connect(host).await.expect("the store");
    let request = format!("GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    store.write_all(request.as_bytes()).await.expect("asking");
    let mut answer = Vec::new();
    store.read_to_end(&mut answer).await.expect("an answer");
    assert!(answer.starts_with(b"HTTP/1.1 200") && answer.ends_with(&large));
    // Who may not pull is sent nowhere.
    let stranger = stack.forged_token("eve", &["repository:other:pull"]);
    client.get(&stranger, target(&large)).await.expect(401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs an S3 server, which tests/interop/s3.sh starts"]
async fn a_push_tells_how_long_chunks_had_better_be_and_leaves_nothing_when_it_is_given_up() {
    let stack = Stack::with(Options { store: Some(s3::place()), ..Options::default() }).await;
    let (client, token) = (&stack.client, &stack.forged_token("andrew", &SCOPES));
    let begun =
        client.call("POST", "/v2/app/blobs/uploads/").bearer(token).send().await.expect(202);
    assert_eq!(begun.header("oci-chunk-min-length"), PART.to_string());
    let location = begun.header("location").to_owned();
    // Shorter ones are taken all the same.
    for number in 0..5 {
        patch(client, token, &location, None, content(2_000_000, number)).await.expect(202);
    }
    assert!(!stack.objects().is_empty());
    client.delete(token, &location).await.expect(204);
    eventually("nothing is left", async || stack.objects().is_empty().then_some(())).await;
    let wrong = start_upload(client, token, "app").await;
    patch(client, token, &wrong, None, content(PART + 1, 1)).await.expect(202);
    let other = digest_of(b"something else");
    commit(client, token, &wrong, &other, content(7, 1)).await.expect_error(400, "DIGEST_INVALID");
    eventually("nothing is left", async || stack.objects().is_empty().then_some(())).await;
}
