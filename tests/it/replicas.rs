//! Three registry-servers that share a registry, its rows in PostgreSQL and its objects in a bucket: any request of
//! anybody may land on any of them, and any of them may be cut off.
//!
//! `tests/interop/replicas.sh` starts both engines, and runs this.

use std::time::Duration;

use berth_shared::clock::Clock;
use bytes::Bytes;
use harness::{
    Stack, eventually,
    image::{Image, digest_of, push_blob, start_upload},
    postgres,
    raw::Raw,
    s3,
    stack::Options,
    upload::{commit, content, patch},
    within,
};
use registry_server::{
    jobs::{Job, event::tell},
    registry::event::Event,
};

use crate::collection::run;

/// The least that S3 takes for a part, which the tests' settings take.
const PART: usize = 5 << 20;

/// Behind every grace period.
const LONG: Duration = Duration::from_secs(48 * 60 * 60);

/// Behind the time for which a server keeps what it has read.
const KEPT: Duration = Duration::from_secs(20);

const SCOPES: [&str; 2] = ["repository:app:*", "repository:other:*"];

/// Three servers, of which the second goes ways that break.
struct World {
    stack: Stack,
    /// The `[database]` table of the others.
    table: String,
    to_database: postgres::Proxy,
    to_store: s3::Proxy,
}

impl World {
    async fn start() -> Self {
        let (to_database, to_store) = (postgres::Proxy::start().await, s3::Proxy::start().await);
        let (table, place) = (postgres::fresh_table().await, s3::place().expect("an S3 server"));
        let own = table.clone() + &place.table;
        let broken = to_database.way_to(&table) + &to_store.way_to(&place).table;
        let options = Options {
            database: Some(table.clone()),
            store: Some(Some(place)),
            replicas: Some(vec![broken, own]),
            registry_limits: "[collection]\ngrace_secs = 3600".into(),
            ..Options::default()
        };
        Self { stack: Stack::with(options).await, table, to_database, to_store }
    }

    fn token(&self) -> String {
        self.stack.forged_token("andrew", &SCOPES)
    }

    /// What one of them says to a GET.
    async fn get(&self, replica: usize, target: &str) -> u16 {
        self.stack.client_of(replica).get(&self.token(), target).await.status.as_u16()
    }

    /// How many bytes of a session one of them says that it holds.
    async fn held(&self, replica: usize, location: &str) -> usize {
        let answer = self.stack.client_of(replica).get(&self.token(), location).await.expect(204);
        let last = answer.header("range").strip_prefix("0-").and_then(|last| last.parse().ok());
        last.filter(|last| *last > 0).map_or(0, |last: usize| last + 1)
    }

    /// Begins to send a chunk to one of them, and says no more after a while.
    async fn begin(&self, replica: usize, location: &str, bytes: &Bytes, sent: usize) -> Raw {
        let (bearer, length) = (format!("Bearer {}", self.token()), bytes.len().to_string());
        let headers = [("Authorization", bearer.as_str()), ("Content-Length", length.as_str())];
        let mut raw = Raw::connect(&self.stack.client_of(replica)).await;
        raw.head(&format!("PATCH {location}"), &headers).await;
        raw.send(&bytes[..sent]).await;
        raw
    }

    /// All of them give these bytes for the blob, the one that was cut off in a moment.
    async fn is_everywhere(&self, bytes: &Bytes) {
        let target = format!("/v2/app/blobs/{}", digest_of(bytes));
        for replica in 0..3 {
            let client = self.stack.client_of(replica);
            let found = eventually("the blob is there", async || {
                let answer = client.get(&self.token(), &target).await;
                answer.status.is_success().then_some(answer)
            });
            assert!(found.await.body == bytes);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL and an S3 server, which tests/interop/replicas.sh starts"]
async fn the_newest_request_of_a_session_goes_on_wherever_it_lands() {
    let world = World::start().await;
    let (token, bytes) = (&world.token(), content(3 * PART + 1000, 1));
    let (first, last) = (world.stack.client_of(0), world.stack.client_of(2));
    let location = start_upload(&first, token, "app").await;
    let half = bytes.slice(..PART + 1);
    patch(&first, token, &location, None, half.clone()).await.expect(202);
    // Its client sends part of a chunk, and another request comes meanwhile.
    let mut overtaken = world.begin(1, &location, &bytes, 2 * PART).await;
    assert_eq!(world.held(2, &location).await, half.len());
    let range = format!("{}-{}", half.len(), 2 * PART - 1);
    let chunk = bytes.slice(half.len()..2 * PART);
    patch(&last, token, &location, Some(&range), chunk).await.expect(202);
    let _ = overtaken.try_send(&bytes[2 * PART..]).await;
    let answer = overtaken.unchecked_answer(false).await;
    assert_eq!(answer.status.as_u16(), 409, "{answer:?}");
    assert_eq!(world.held(0, &location).await, 2 * PART);
    let rest = bytes.slice(2 * PART..);
    commit(&first, token, &location, &digest_of(&bytes), rest).await.expect(201);
    world.is_everywhere(&bytes).await;
    // Whoever did not hear that it was done may ask once more, and nothing else.
    commit(&last, token, &location, &digest_of(&bytes), "").await.expect(201);
    commit(&last, token, &location, &digest_of(b"other"), "").await.expect(404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL and an S3 server, which tests/interop/replicas.sh starts"]
async fn what_comes_is_recorded_while_more_comes_and_another_server_goes_on_there() {
    const RECORDED: usize = 64 << 20;
    let world = World::start().await;
    let (token, bytes) = (&world.token(), content(RECORDED + 8 * PART, 2));
    let client = world.stack.client_of(0);
    let location = start_upload(&client, token, "app").await;
    let _stalled = world.begin(1, &location, &bytes, bytes.len() - 1).await;
    let held = within(Duration::from_secs(60), "bytes are recorded", async || {
        Some(world.held(0, &location).await).filter(|held| *held > 0)
    });
    let held = held.await;
    assert!((RECORDED..RECORDED + PART).contains(&held) && held % PART == 0, "{held}");
    // The server dies, as far as anybody can tell.
    world.to_database.cut();
    let rest = bytes.slice(held..);
    commit(&client, token, &location, &digest_of(&bytes), rest).await.expect(201);
    world.to_database.open();
    world.is_everywhere(&bytes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL and an S3 server, which tests/interop/replicas.sh starts"]
async fn who_comes_back_from_being_cut_off_records_nothing_of_a_session_that_went_on() {
    let world = World::start().await;
    let (token, bytes) = (&world.token(), content(2 * PART + 5, 3));
    let client = world.stack.client_of(0);
    let location = start_upload(&client, token, "app").await;
    let other = content(2 * PART + 5, 4);
    let mut cut_off = world.begin(1, &location, &other, PART).await;
    world.to_database.stop();
    let _ = cut_off.try_send(&other[PART..]).await;
    patch(&client, token, &location, None, bytes.clone()).await.expect(202);
    world.to_database.open();
    let answer = cut_off.unchecked_answer(false).await;
    assert!(matches!(answer.status.as_u16(), 409 | 503), "{answer:?}");
    assert_eq!(world.held(2, &location).await, bytes.len());
    commit(&client, token, &location, &digest_of(&bytes), "").await.expect(201);
    world.is_everywhere(&bytes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL and an S3 server, which tests/interop/replicas.sh starts"]
async fn a_tag_moves_everywhere_at_once_and_what_is_deleted_is_gone_a_moment_later() {
    let world = World::start().await;
    let token = &world.token();
    let clients = [0, 1, 2].map(|replica| world.stack.client_of(replica));
    let mut last = None;
    for (number, client) in clients.iter().cycle().take(9).enumerate() {
        let image = Image::new(&format!("image {number}"));
        image.push(client, token, "app", "moving").await;
        for other in &clients {
            let found = other.get(token, "/v2/app/manifests/moving").await.expect(200);
            assert_eq!(digest_of(&found.body), image.digest());
        }
        last = Some(image.digest());
    }
    let digest = last.expect("an image");
    let by_digest = format!("/v2/app/manifests/{digest}");
    clients[0].delete(token, &by_digest).await.expect(202);
    for (replica, client) in clients.iter().enumerate() {
        assert_eq!(world.get(replica, "/v2/app/manifests/moving").await, 404);
        let tags = client.get(token, "/v2/app/tags/list").await;
        assert!(!String::from_utf8_lossy(&tags.body).contains("moving"));
        within(KEPT, "it is gone", async || {
            (world.get(replica, &by_digest).await == 404).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL and an S3 server, which tests/interop/replicas.sh starts"]
async fn all_are_told_to_take_no_pushes_by_one_word_and_one_that_cannot_hear_takes_none() {
    let world = World::start().await;
    let token = &world.token();
    let takes_pushes = async |replica: usize| {
        let client = world.stack.client_of(replica);
        let call = client.call("POST", "/v2/app/blobs/uploads/").bearer(token);
        match call.send().await.status.as_u16() {
            202 => Some(true),
            405 => Some(false),
            _ => None,
        }
    };
    let is_so = async |replica: usize, pushes: bool| {
        within(KEPT, "all have heard it", async || {
            (takes_pushes(replica).await == Some(pushes)).then_some(())
        })
        .await;
    };
    let home = world.stack.home();
    let switched = async |on: bool| {
        let home = home.clone();
        tell(async move |events| home.switch(on, Clock::system(), &events).await)
    };
    let mut told = switched(true).await;
    for replica in 0..3 {
        is_so(replica, false).await;
    }
    assert!(matches!(
        told.recv().await,
        Some(registry_server::jobs::event::Told::Step(Event::Waiting { .. }))
    ));
    drop(told);
    let mut told = switched(false).await;
    assert!(told.recv().await.is_some());
    for replica in 0..3 {
        is_so(replica, true).await;
    }
    // Whose database is away for long cannot know.
    world.to_database.stop();
    let unknowing = world.stack.registry_of(1);
    within(KEPT, "it takes none", async || unknowing.is_read_only().then_some(())).await;
    assert_eq!(takes_pushes(0).await, Some(true));
    world.to_database.open();
    is_so(1, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL and an S3 server, which tests/interop/replicas.sh starts"]
async fn while_one_is_cut_off_the_others_go_on_and_then_it_does() {
    let world = World::start().await;
    let token = &world.token();
    let cut_off = world.stack.client_of(1);
    for number in 0..2 {
        let image = Image::new(&format!("image {number}"));
        let manifest = format!("/v2/app/manifests/{}", image.digest());
        let large = content(PART, number);
        let blob = format!("/v2/app/blobs/{}", digest_of(&large));
        push_blob(&world.stack.client_of(0), token, "app", &large).await;
        let is_store = number == 0;
        match is_store {
            true => world.to_store.cut(),
            false => world.to_database.cut(),
        }
        image.push(&world.stack.client_of(2), token, "app", "v1").await;
        assert_eq!(world.get(0, "/v2/app/manifests/v1").await, 200);
        assert_eq!(world.get(1, "/v2/app/manifests/v1").await, if is_store { 200 } else { 503 });
        assert_eq!(world.get(1, &blob).await, 503);
        let refused =
            cut_off.call("POST", format!("/v2/app/blobs/uploads/?digest={}", digest_of(b"x")));
        let refused = refused.bearer(token).body("x").send().await.expect(503);
        assert!(refused.find_header("retry-after").is_some());
        eventually("a balancer leaves the one that can tell nothing", async || {
            let answer = cut_off.call("GET", "/readyz").send().await;
            (answer.status.is_success() == is_store).then_some(())
        })
        .await;
        match is_store {
            true => world.to_store.open(),
            false => world.to_database.open(),
        }
        for target in ["/v2/app/manifests/v1", &manifest, &blob] {
            eventually("it goes on", async || (world.get(1, target).await == 200).then_some(()))
                .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL and an S3 server, which tests/interop/replicas.sh starts"]
async fn while_somebody_holds_objects_rows_go_and_objects_stay() {
    let world = World::start().await;
    let token = &world.token();
    push_blob(&world.stack.client, token, "app", &content(1000, 5)).await;
    world.stack.clock.advance(LONG);
    let until = (world.stack.clock.now() + 60).get();
    let hold = format!("INSERT INTO leases VALUES ('hold/one', 'one', {until}, 0)");
    postgres::execute(&world.table, &hold).await;
    let collect = async || drop(run(&world.stack, Job::Collect { dry_run: false }).await);
    collect().await;
    let blob = format!("/v2/app/blobs/{}", digest_of(&content(1000, 5)));
    assert_eq!(world.get(0, &blob).await, 404, "its row is gone");
    assert_eq!(world.stack.objects().len(), 1, "and its object is held");
    collect().await;
    assert_eq!(world.stack.objects().len(), 1);
    postgres::execute(&world.table, "DELETE FROM leases WHERE name = 'hold/one'").await;
    collect().await;
    assert!(world.stack.objects().is_empty());
}
