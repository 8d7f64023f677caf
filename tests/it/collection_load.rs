//! Collection without pause while eight workers push, pull, delete and push again: nothing that was
//! acknowledged is lost, and at the end nothing is left that nobody needs.
//!
//! `BERTH_LOAD_STEPS` makes it longer: how often each worker does something (60).

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use berth_shared::clock::Clock;
use bytes::Bytes;
use harness::{
    Stack,
    client::Client,
    image::{MANIFEST, digest_of, put_manifest},
    stack::Options,
};
use registry_server::{
    data::CONTROL_SOCKET,
    jobs::{
        Job,
        event::{Outcome, Told},
    },
};
use serde_json::json;

const WORKERS: u64 = 8;

/// Layers that all workers choose from.
const LAYERS: u64 = 12;

fn layer(number: u64) -> Bytes {
    Bytes::from(format!("layer {number} ").repeat(200))
}

/// An image of three of the layers.
fn manifest(layers: [u64; 3]) -> Bytes {
    let descriptor = |number: &u64| {
        let bytes = layer(*number);
        json!({ "mediaType": "a/b", "digest": digest_of(&bytes).as_str(), "size": bytes.len() })
    };
    let [config, rest @ ..] = layers.each_ref().map(descriptor);
    let manifest =
        json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": rest });
    manifest.to_string().into()
}

/// A worker has a repository to itself, and its tags with what they point to.
struct Worker {
    client: Client,
    token: String,
    repository: String,
    state: u64,
    tags: BTreeMap<String, [u64; 3]>,
    /// Every manifest that is there, with a tag or without.
    manifests: HashSet<[u64; 3]>,
    /// Blobs that the registry said it has, and that were not pushed for it.
    believed: u64,
}

impl Worker {
    fn random(&mut self, below: u64) -> u64 {
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.state >> 33) % below
    }

    async fn step(&mut self) {
        let tag = format!("t{}", self.random(4));
        match self.random(10) {
            0..6 => {
                let layers = [(); 3].map(|()| self.random(LAYERS));
                self.push(&tag, layers).await;
            }
            6..8 => self.delete(&tag).await,
            _ => self.pull(&tag).await,
        }
    }

    /// As docker does: asks for each blob, pushes what is missing, and all of it again when the
    /// manifest is refused for a blob that has gone meanwhile.
    async fn push(&mut self, tag: &str, layers: [u64; 3]) {
        for attempt in 0..20 {
            for number in layers {
                self.push_blob(&layer(number), attempt > 0).await;
            }
            let (client, token) = (&self.client, &self.token);
            let bytes = manifest(layers);
            let put = put_manifest(client, token, &self.repository, tag, MANIFEST, bytes).await;
            if put.status == 201 {
                self.tags.insert(tag.to_owned(), layers);
                self.manifests.insert(layers);
                return;
            }
            assert_eq!((put.status.as_u16(), put.code().as_str()), (400, "MANIFEST_BLOB_UNKNOWN"));
        }
        panic!("collection took the blobs of a push twenty times");
    }

    async fn push_blob(&mut self, bytes: &Bytes, surely: bool) {
        let (name, digest) = (&self.repository, digest_of(bytes));
        let head = self.client.head(&self.token, format!("/v2/{name}/blobs/{digest}")).await;
        if head.status == 200 && !surely {
            self.believed += 1;
            return;
        }
        harness::image::push_blob(&self.client, &self.token, name, bytes).await;
    }

    async fn delete(&mut self, tag: &str) {
        let Some(layers) = self.tags.remove(tag) else { return };
        let digest = digest_of(&manifest(layers));
        let target = format!("/v2/{}/manifests/{digest}", self.repository);
        self.client.delete(&self.token, target).await.expect(202);
        // Other tags on the same manifest go with it.
        self.tags.retain(|_, other| *other != layers);
        self.manifests.remove(&layers);
    }

    async fn pull(&self, tag: &str) {
        let target = format!("/v2/{}/manifests/{tag}", self.repository);
        let got = self.client.get(&self.token, target).await;
        let Some(layers) = self.tags.get(tag) else {
            assert_eq!(got.status, 404);
            return;
        };
        assert_eq!(got.expect(200).body, manifest(*layers));
        for number in layers {
            let bytes = layer(*number);
            let target = format!("/v2/{}/blobs/{}", self.repository, digest_of(&bytes));
            assert_eq!(self.client.get(&self.token, target).await.expect(200).body, bytes);
        }
    }
}

async fn collect(stack: &Stack) -> Told<Outcome> {
    let socket = stack.root().join("registry").join(CONTROL_SOCKET);
    let mut events =
        Job::Collect { dry_run: false }.ask(&socket).await.expect("the control socket");
    let mut last = None;
    while let Some(event) = events.recv().await {
        last = Some(event);
    }
    last.expect("an end")
}

async fn under_load(grace_secs: u64, steps: u64) {
    let registry_limits = format!("[collection]\ngrace_secs = {grace_secs}\norphan_secs = 0\n");
    let options = Options { registry_limits, clock: Clock::system(), ..Options::default() };
    let stack = Arc::new(Stack::with(options).await);
    let done = Arc::new(AtomicBool::new(false));
    let collector = tokio::spawn({
        let (stack, done) = (Arc::clone(&stack), Arc::clone(&done));
        async move {
            let mut runs = 0;
            while !done.load(Ordering::SeqCst) {
                let end = collect(&stack).await;
                assert!(
                    matches!(&end, Told::Ended(Outcome::Collected(it)) if it.problems == 0),
                    "{end:?}"
                );
                runs += 1;
            }
            runs
        }
    });
    let mut workers = Vec::new();
    for number in 0..WORKERS {
        let repository = format!("load/w{number}");
        let scope = format!("repository:{repository}:pull,push,delete");
        let mut worker = Worker {
            client: stack.client.clone(),
            token: stack.forged_token("andrew", &[&scope]),
            repository,
            state: number + 1,
            tags: BTreeMap::new(),
            manifests: HashSet::new(),
            believed: 0,
        };
        workers.push(tokio::spawn(async move {
            for _ in 0..steps {
                worker.step().await;
            }
            worker
        }));
    }
    let mut finished = Vec::new();
    for worker in workers {
        finished.push(worker.await.expect("a worker"));
    }
    done.store(true, Ordering::SeqCst);
    let runs = collector.await.expect("the collector");
    let believed: u64 = finished.iter().map(|worker| worker.believed).sum();
    println!("{runs} collections ran meanwhile; {believed} blobs were not pushed again");
    assert!(runs > 1 && believed > 0, "the test shows nothing");
    settle(&stack, &mut finished, grace_secs).await;
}

/// At the end the model and the registry agree exactly.
async fn settle(stack: &Stack, workers: &mut [Worker], grace_secs: u64) {
    for worker in &*workers {
        for tag in worker.tags.keys() {
            worker.pull(tag).await;
        }
    }
    // Times are whole seconds, so the last touch is past the grace period a second after it.
    tokio::time::sleep(Duration::from_secs(grace_secs + 2)).await;
    collect(stack).await;
    let manifests = workers.iter().flat_map(|worker| &worker.manifests);
    let layers: HashSet<u64> = manifests.flatten().copied().collect();
    let needed: HashSet<String> =
        layers.into_iter().map(|number| digest_of(&layer(number)).to_string()).collect();
    let objects = stack.objects();
    let held: HashSet<String> = objects
        .iter()
        .map(|path| digest_of(&fs::read(path).expect("an object")).to_string())
        .collect();
    assert_eq!(held, needed, "what is stored is not what is needed");
    assert_eq!(held.len(), objects.len(), "something is stored twice");
}

fn steps() -> u64 {
    // Set by whoever wants a longer run; there is no command line to say it on.
    #[expect(clippy::disallowed_methods, reason = "a test has no other settings")]
    std::env::var("BERTH_LOAD_STEPS").ok().and_then(|steps| steps.parse().ok()).unwrap_or(60)
}

#[tokio::test(flavor = "multi_thread")]
async fn without_grace_nothing_acknowledged_is_lost_and_nothing_unneeded_is_left() {
    under_load(0, steps()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_second_of_grace_too() {
    under_load(1, steps()).await;
}
