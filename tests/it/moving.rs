//! A registry moves from a file of SQLite to PostgreSQL and back, or from a disk into a bucket and back, by a
//! backup that is restored there.
//!
//! `tests/interop/postgres.sh` and `tests/interop/s3.sh` start the servers, and run this.

use std::{fs, path::Path};

use harness::{
    Stack,
    image::{INDEX, Image, MANIFEST, digest_of, put_manifest},
    postgres::Proxy,
    s3,
    stack::Options,
};
use registry_server::{
    data::Home,
    registry::event::Events,
    transfer::{
        backup::{Summary, backup},
        restore::restore,
    },
};
use serde_json::json;

const SCOPES: [&str; 2] = ["repository:app:*", "repository:other:*"];

/// Tags besides those of the images.
const TAGS: usize = 520;

/// What the registry that moves holds.
struct Content {
    image: Image,
    index: bytes::Bytes,
}

impl Content {
    async fn push_to(stack: &Stack) -> Self {
        let (client, token) = (&stack.client, stack.forged_token("andrew", &SCOPES));
        let image = Image::new("one that moves");
        for repository in ["app", "other"] {
            image.push(client, &token, repository, "v1").await;
        }
        let child = json!({
            "mediaType": MANIFEST,
            "digest": image.digest().as_str(),
            "size": image.manifest.len(),
        });
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [&child] });
        let index = bytes::Bytes::from(index.to_string());
        put_manifest(client, &token, "app", "all", INDEX, index.clone()).await.expect(201);
        let subject = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": "a/signature",
            "config": { "mediaType": "a/b", "digest": digest_of(&image.config).as_str(), "size": 1 },
            "layers": [],
            "subject": child,
            "annotations": { "of": "the index" },
        });
        let referrer = bytes::Bytes::from(subject.to_string());
        let at = digest_of(&referrer).to_string();
        put_manifest(client, &token, "app", &at, MANIFEST, referrer).await.expect(201);
        // More than go in one statement.
        for number in 0..TAGS {
            let (tag, bytes) = (format!("t{number}"), image.manifest.clone());
            put_manifest(client, &token, "app", &tag, MANIFEST, bytes).await.expect(201);
        }
        Self { image, index }
    }

    async fn is_at(&self, stack: &Stack) {
        let (client, token) = (&stack.client, stack.forged_token("andrew", &SCOPES));
        let get = async |target: String| client.get(&token, target).await.expect(200).body;
        for repository in ["app", "other"] {
            let found = get(format!("/v2/{repository}/manifests/v1")).await;
            assert_eq!(found, self.image.manifest);
            let layer = digest_of(&self.image.layer);
            assert_eq!(get(format!("/v2/{repository}/blobs/{layer}")).await, self.image.layer);
        }
        assert_eq!(get("/v2/app/manifests/all".to_owned()).await, self.index);
        let tags = client.get(&token, "/v2/app/tags/list?n=10000").await.expect(200).json();
        assert_eq!(tags["tags"].as_array().expect("tags").len(), TAGS + 2);
        let referrers = format!("/v2/app/referrers/{}", self.image.digest());
        let referrers = client.get(&token, referrers).await.expect(200).json();
        assert_eq!(referrers["manifests"][0]["annotations"]["of"], "the index");
    }
}

/// A registry whose server has stopped, with nothing in it.
async fn empty(database: String) -> Stack {
    empty_with(Options { database: Some(database), ..Options::default() }).await
}

async fn empty_with(options: Options) -> Stack {
    let mut stack = Stack::with(options).await;
    stack.stop_registry().await;
    // A file would be somebody's registry.
    for name in ["registry.db", "registry.db-wal", "registry.db-shm"] {
        let _ = fs::remove_file(stack.root().join("registry").join(name));
    }
    stack
}

/// Does work whose steps nobody is told.
async fn listening<T>(work: impl AsyncFnOnce(Events) -> T) -> T {
    let (events, mut told) = Events::channel();
    let listen = async { while told.recv().await.is_some() {} };
    tokio::join!(work(events), listen).0
}

async fn back_up_all(stack: &Stack, to: &Path) -> Summary {
    let made =
        async |events| backup(stack.home(), to.to_owned(), stack.clock.clone(), events).await;
    listening(made).await.expect("a backup")
}

async fn back_up(stack: &Stack, to: &Path) {
    let done = back_up_all(stack, to).await;
    assert_eq!((done.repositories, done.manifests, done.blobs, done.missing), (2, 4, 2, 0));
}

async fn put_back(home: Home, from: &Path, stack: &Stack) -> Result<u64, String> {
    let restored = async |events| restore(home, from.to_owned(), stack.clock.clone(), events).await;
    listening(restored).await.map(|done| done.damaged).map_err(|error| error.to_string())
}

#[tokio::test]
#[ignore = "needs PostgreSQL, which tests/interop/postgres.sh starts"]
async fn a_registry_moves_to_postgresql_and_back() {
    let first = Stack::with(Options { database: Some(String::new()), ..Options::default() }).await;
    let content = Content::push_to(&first).await;
    let scratch = tempfile::tempdir().expect("a directory");
    let (to_server, to_file) = (scratch.path().join("one"), scratch.path().join("two"));
    back_up(&first, &to_server).await;

    let proxy = Proxy::start().await;
    let mut second = empty(proxy.table().await).await;
    assert_eq!(put_back(second.home(), &to_server, &second).await, Ok(0));
    let again = put_back(second.home(), &to_server, &second).await.expect_err("a refusal");
    assert!(again.contains("a registry is in the database"), "{again}");
    second.start_registry().await;
    content.is_at(&second).await;
    // What is new gets a number of its own.
    let token = second.forged_token("andrew", &["repository:new:*"]);
    Image::new("a new one").push(&second.client, &token, "new", "v1").await;
    let target = format!("/v2/new/manifests/{}", Image::new("a new one").digest());
    second.client.delete(&token, target).await.expect(202);
    content.is_at(&second).await;

    let (events, mut told) = Events::channel();
    let listen = async { while told.recv().await.is_some() {} };
    let backup = backup(second.home(), to_file.clone(), second.clock.clone(), events);
    let (done, ()) = tokio::join!(backup, listen);
    assert_eq!(done.expect("a backup").missing, 0);
    let mut third = empty(String::new()).await;
    assert_eq!(put_back(third.home(), &to_file, &third).await, Ok(0));
    third.start_registry().await;
    content.is_at(&third).await;
}

#[tokio::test]
#[ignore = "needs an S3 server, which tests/interop/s3.sh starts"]
async fn a_registry_moves_into_a_bucket_and_back() {
    let on_disk = || Options { store: Some(None), ..Options::default() };
    let first = Stack::with(on_disk()).await;
    let content = Content::push_to(&first).await;
    let scratch = tempfile::tempdir().expect("a directory");
    let (to_bucket, to_disk) = (scratch.path().join("one"), scratch.path().join("two"));
    back_up(&first, &to_bucket).await;

    let mut second = empty_with(on_disk()).await;
    second.keep_objects_at(s3::place().expect("an S3 server"));
    assert_eq!(put_back(second.home(), &to_bucket, &second).await, Ok(0));
    second.start_registry().await;
    content.is_at(&second).await;
    let token = second.forged_token("andrew", &["repository:new:*"]);
    Image::new("a new one").push(&second.client, &token, "new", "v1").await;
    let target = format!("/v2/new/manifests/{}", Image::new("a new one").digest());
    second.client.delete(&token, target).await.expect(202);

    // What is there already is not written over.
    let mut third = empty_with(on_disk()).await;
    third.keep_objects_at(second.place().expect("a bucket"));
    let refused = put_back(third.home(), &to_bucket, &third).await.expect_err("a refusal");
    assert!(refused.contains("another registry's"), "{refused}");

    // A copy of the rows has the objects beside it, wherever they were.
    back_up_all(&second, &to_disk).await;
    let mut fourth = empty_with(on_disk()).await;
    assert_eq!(put_back(fourth.home(), &to_disk, &fourth).await, Ok(0));
    fourth.start_registry().await;
    content.is_at(&fourth).await;
}
