//! Indexes whose entries are no manifests, such as BuildKit's caches of before 2025: what they name
//! are blobs, and those are kept as an image's layers are.

use std::{fs, path::PathBuf, time::Duration};

use bytes::Bytes;
use harness::{
    Stack,
    image::{INDEX, Image, MANIFEST, digest_of, push_blob, put_manifest},
    stack::Options,
};
use registry_server::{
    jobs::{
        Job,
        event::{Outcome, Told},
    },
    registry::{
        event::{Event, Events},
        verify,
    },
    transfer::export::export,
};
use serde_json::{Value, json};

use crate::collection::run;

const CONFIG: &str = "application/vnd.buildkit.cacheconfig.v0";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// A cache as BuildKit pushes it.
struct Cache {
    config: Bytes,
    layer: Bytes,
    index: Bytes,
}

impl Cache {
    /// With further entries.
    fn new(entries: &[Value]) -> Self {
        let (config, layer) = (Bytes::from("{\"layers\":[]}"), Bytes::from("a layer of the cache"));
        let mut manifests = vec![entry(LAYER, &layer), entry(CONFIG, &config)];
        manifests.extend_from_slice(entries);
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests });
        Self { config, layer, index: index.to_string().into() }
    }

    fn blobs(&self) -> [&Bytes; 2] {
        [&self.config, &self.layer]
    }

    async fn push_blobs(&self, stack: &Stack, token: &str) {
        for blob in self.blobs() {
            push_blob(&stack.client, token, "app", blob).await.expect(201);
        }
    }

    async fn push_index(&self, stack: &Stack, token: &str) -> harness::Response {
        put_manifest(&stack.client, token, "app", "buildcache", INDEX, self.index.clone()).await
    }
}

fn entry(kind: &str, bytes: &[u8]) -> Value {
    json!({ "mediaType": kind, "digest": digest_of(bytes), "size": bytes.len() })
}

async fn with_token(stack: &Stack) -> String {
    stack.forged_token("andrew", &["repository:app:pull,push,delete"])
}

async fn collect(stack: &Stack) -> Vec<Told<Outcome>> {
    run(stack, Job::Collect { dry_run: false }).await
}

#[tokio::test]
async fn what_such_an_index_names_must_be_there_and_stays() {
    let stack = Stack::start().await;
    let token = with_token(&stack).await;
    let image = Image::new("beside");
    image.push(&stack.client, &token, "app", "v1").await;
    let cache = Cache::new(&[entry(MANIFEST, &image.manifest)]);
    let refused = cache.push_index(&stack, &token).await.expect_error(400, "MANIFEST_BLOB_UNKNOWN");
    let missing = refused.json()["errors"].as_array().map(Vec::len);
    assert_eq!(missing, Some(2), "the image's manifest is there");
    cache.push_blobs(&stack, &token).await;
    cache.push_index(&stack, &token).await.expect(201);

    stack.clock.advance(Duration::from_secs(100 * 24 * 60 * 60));
    let token = with_token(&stack).await;
    let told = collect(&stack).await;
    assert!(told.iter().all(|event| !matches!(event, Told::Step(Event::Gone { .. }))), "{told:?}");
    for blob in cache.blobs() {
        let target = format!("/v2/app/blobs/{}", digest_of(blob));
        stack.client.get(&token, &target).await.expect(200);
        let refused = stack.client.delete(&token, &target).await.expect_error(405, "UNSUPPORTED");
        assert!(refused.json()["errors"][0]["message"].as_str().unwrap().contains("still names"));
    }
    let referrers = format!("/v2/app/referrers/{}", digest_of(&cache.layer));
    assert_eq!(
        stack.client.get(&token, referrers).await.expect(200).json()["manifests"],
        json!([])
    );

    // Without the index nothing names them.
    stack.client.delete(&token, "/v2/app/manifests/buildcache").await.expect(202);
    let target = format!("/v2/app/manifests/{}", digest_of(&cache.index));
    stack.client.delete(&token, target).await.expect(202);
    stack.clock.advance(Duration::from_secs(2 * 24 * 60 * 60));
    let token = with_token(&stack).await;
    collect(&stack).await;
    for blob in cache.blobs() {
        let target = format!("/v2/app/blobs/{}", digest_of(blob));
        stack.client.get(&token, target).await.expect(404);
    }
}

#[tokio::test]
async fn with_sparse_manifests_what_is_there_stays_too() {
    let registry_limits = "sparse_manifests = true\n".to_owned();
    let stack = Stack::with(Options { registry_limits, ..Options::default() }).await;
    let token = with_token(&stack).await;
    let cache = Cache::new(&[entry(LAYER, b"what is not here"), entry("", b"nor this")]);
    cache.push_blobs(&stack, &token).await;
    cache.push_index(&stack, &token).await.expect(201);
    stack.clock.advance(Duration::from_secs(100 * 24 * 60 * 60));
    let token = with_token(&stack).await;
    collect(&stack).await;
    for blob in cache.blobs() {
        let target = format!("/v2/app/blobs/{}", digest_of(blob));
        stack.client.head(&token, target).await.expect(200);
    }
}

#[tokio::test]
async fn caches_are_counted_verified_and_exported() {
    let stack = Stack::start().await;
    let token = with_token(&stack).await;
    let cache = Cache::new(&[]);
    cache.push_blobs(&stack, &token).await;
    cache.push_index(&stack, &token).await.expect(201);
    let database = stack.home().open_beside().await.expect("the database");
    let tags = database.images(&"app".parse().expect("a name")).await.expect("tags");
    let bytes = cache.blobs().iter().map(|blob| blob.len() as u64).sum::<u64>();
    assert_eq!((tags[0].tag.as_str(), tags[0].bytes), ("buildcache", bytes));

    let layout = stack.root().join("layout");
    let name = "app".parse().expect("a name");
    let (events, _told) = Events::channel();
    let done = export(stack.home(), name, None, layout.clone(), stack.clock.clone(), events)
        .await
        .expect("an export");
    assert_eq!((done.images, done.manifests, done.blobs, done.damaged), (1, 1, 2, 0));
    for bytes in [&cache.config, &cache.layer, &cache.index] {
        let path = layout.join("blobs/sha256").join(digest_of(bytes).hex());
        assert_eq!(fs::read(path).expect("a blob"), **bytes);
    }

    let holds = |path: &PathBuf| fs::read(path).is_ok_and(|found| found == cache.layer);
    let object = stack.objects().into_iter().find(holds).expect("an object");
    fs::write(object, "other bytes, as many").expect("damaging it");
    let options = verify::Options { repair: false, bytes_per_sec_max: Some(u64::MAX) };
    let told = run(&stack, Job::Verify { options }).await;
    let images = told.iter().find_map(|event| match event {
        Told::Step(Event::Damaged { digest, images, .. }) if *digest == digest_of(&cache.layer) => {
            Some(images)
        }
        _ => None,
    });
    assert_eq!(images.expect("damage"), &["app:buildcache"]);
}

/// What one index may name is bounded, whatever it is.
#[tokio::test]
async fn an_index_of_thousands_of_blobs_is_taken_and_of_more_is_not() {
    let stack = Stack::start().await;
    let token = with_token(&stack).await;
    let blob = Bytes::from("one blob");
    push_blob(&stack.client, &token, "app", &blob).await.expect(201);
    for (count, status) in [(4096, 201), (4097, 400)] {
        let manifests = vec![entry(LAYER, &blob); count];
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests });
        let bytes = index.to_string().into();
        put_manifest(&stack.client, &token, "app", "many", INDEX, bytes).await.expect(status);
    }
}
