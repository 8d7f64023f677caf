//! Every domain operation, with its N-th storage call or database step failing, for N = 1, 2, …
//! until it passes. After each failure the registry is opened again and looked at.

mod bad_rows;
mod chain;
mod large;
pub(crate) mod operations;
mod store;
mod storm;

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use berth_shared::{clock::Clock, digest::Algorithm};
use bytes::Bytes;
use tempfile::TempDir;

use crate::{
    metadata::Database,
    registry::{Error, Limits, Registry, Settings, event::Events, gc, verify},
    storage::{Store, disk::DiskStore, parts::PartStore},
};
use operations::{OPERATIONS, Operation};
use store::FaultyStore;

/// Which step is to fail.
#[derive(Debug, Clone)]
pub(crate) struct Faults(Arc<AtomicI64>);

impl Faults {
    /// The `number`-th step fails, counted from 1, and no other.
    fn at(number: i64) -> Self {
        Self(Arc::new(AtomicI64::new(number)))
    }

    /// No step fails, and all are counted.
    pub(crate) fn none() -> Self {
        Self::at(i64::MAX)
    }

    /// How many steps were taken, of [`none`](Self::none) that fails.
    pub(crate) fn taken(&self) -> i64 {
        i64::MAX - self.0.load(Ordering::SeqCst)
    }

    /// Takes a step; `false` when it is the one that fails.
    pub(crate) fn step(&self) -> bool {
        self.0.fetch_sub(1, Ordering::SeqCst) != 1
    }

    /// Whether that step has not come.
    fn is_left(&self) -> bool {
        self.0.load(Ordering::SeqCst) > 0
    }
}

fn settings() -> Settings {
    Settings {
        limits: Limits {
            manifest_bytes_max: 1 << 20,
            upload_idle: Duration::from_secs(60),
            write_time: Duration::from_secs(30),
            free_bytes_min: 0,
            uploads_max: 4,
            memory_bytes_max: 8 << 20,
            uploads_per_subject_max: 4,
            sessions_per_subject_max: 100,
            unfinished_bytes_per_subject_max: 1 << 30,
            sparse_manifests: false,
        },
        collection: gc::Settings {
            interval: None,
            grace: Duration::ZERO,
            objects_kept: Duration::ZERO,
            orphans_after: Duration::ZERO,
            untagged_after: Some(Duration::from_secs(60)),
        },
        verification: verify::Settings { every: None, bytes_per_sec_max: u64::MAX },
        read_only: false,
    }
}

/// A directory in memory where there is one: durability is not what fails here, and some thousand data
/// directories are made.
fn scratch() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// Makes a store in a data directory.
type MakeStore = fn(&Path) -> Arc<dyn Store>;

fn disk(root: &Path) -> Arc<dyn Store> {
    Arc::new(DiskStore::open(&root.join("objects")).unwrap().without_durability())
}

fn parts(root: &Path) -> Arc<dyn Store> {
    Arc::new(PartStore::open(&root.join("objects")))
}

pub(crate) async fn sound(root: &Path, clock: &Clock) -> Registry {
    sound_on(disk, root, clock).await
}

async fn sound_on(store: MakeStore, root: &Path, clock: &Clock) -> Registry {
    let database = Database::open_without_durability(&root.join("registry.db")).await.unwrap();
    Registry::new(database, store(root), clock.clone(), settings())
}

pub(crate) async fn faulty(root: &Path, clock: &Clock, faults: &Faults) -> Registry {
    faulty_on(disk, root, clock, faults).await
}

async fn faulty_on(store: MakeStore, root: &Path, clock: &Clock, faults: &Faults) -> Registry {
    let database = Database::open_faulty(&root.join("registry.db"), faults).await.unwrap();
    let store = Arc::new(FaultyStore::new(store(root), faults.clone()));
    Registry::new(database, store, clock.clone(), settings())
}

/// Listens to long work, so that it goes on, until it is through.
pub(crate) async fn listening<T>(work: impl AsyncFnOnce(Events) -> T) -> T {
    let (events, mut told) = Events::channel();
    let drain = async { while told.recv().await.is_some() {} };
    tokio::join!(work(events), drain).0
}

/// Nothing is half there: what the database names is in the store and hashes right.
async fn look_at(registry: &Registry, what: &str) {
    assert_eq!(registry.database().broken_rules().await.unwrap(), Vec::<String>::new(), "{what}");
    let options = verify::Options::default();
    let found =
        listening(async |events| registry.verifier.verify(options, &events).await).await.unwrap();
    assert_eq!(found.damaged, 0, "{what}: something is damaged");
}

/// After a collection there are the objects of the blobs, and no others.
async fn collect_all(registry: &Registry, clock: &Clock, what: &str) {
    clock.advance(Duration::from_secs(2 * 60 * 60));
    listening(async |events| registry.collector.collect(&events).await).await.unwrap();
    let (blobs, uploads, _) = registry.database().rows().await.unwrap();
    let mut objects = 0;
    for shard in 0..=u8::MAX {
        objects += registry.store().list(shard).await.unwrap().objects.len();
    }
    assert_eq!((objects, uploads), (usize::try_from(blobs).unwrap(), 0), "{what}");
    let dead = registry.database().dead_objects(clock.now(), &Default::default(), 1).await.unwrap();
    assert!(dead.is_empty(), "{what}: {dead:?}");
}

/// Runs the operation with one step failing. `false` when it had fewer steps than that.
async fn fail_at(number: i64, operation: &Operation, store: MakeStore) -> bool {
    let directory = scratch();
    let root = directory.path();
    let clock = Clock::set(Clock::system().now());
    let what = format!("{} with step {number} failing", operation.name);
    let before = sound_on(store, root, &clock).await;
    (operation.prepare)(&before, &clock).await.unwrap();
    drop(before);

    let faults = Faults::at(number);
    let registry = faulty_on(store, root, &clock, &faults).await;
    let outcome = (operation.act)(&registry).await;
    let failed = !faults.is_left();
    assert!(failed || outcome.is_ok(), "{what}: {outcome:?}");
    if failed {
        // The writer has survived the failure.
        registry.database().check().await.unwrap();
        let harmless = Bytes::from(format!("after {number}"));
        operations::push(&registry, "other", &harmless, Algorithm::Sha256).await.unwrap();
    }
    drop(registry);

    let after = sound_on(store, root, &clock).await;
    look_at(&after, &what).await;
    if outcome.is_ok() {
        (operation.done)(&after).await.unwrap_or_else(|error| panic!("{what}: lost: {error}"));
    } else {
        (operation.retry)(&after).await.unwrap_or_else(|error| panic!("{what}: again: {error}"));
        (operation.done)(&after).await.unwrap_or_else(|error| panic!("{what}: {error}"));
    }
    look_at(&after, &what).await;
    collect_all(&after, &clock, &what).await;
    look_at(&after, &what).await;
    failed
}

/// Steps that are failed one by one; a collection then repeats itself for every directory of the
/// store, and only some of those steps are.
const ONE_BY_ONE: i64 = 60;

/// How many registries fail at the same time.
const AT_ONCE: i64 = 6;

async fn fail_at_any_step(operation: &Operation, store: MakeStore) {
    let mut number = 1;
    loop {
        let stride = if number < ONE_BY_ONE { 1 } else { 17 };
        let round = (0..AT_ONCE).map(|nth| fail_at(number + nth * stride, operation, store));
        let failed = futures_util::future::join_all(round).await;
        if failed.contains(&false) {
            assert!(failed[0] || number > 1, "{} has no step to fail", operation.name);
            break;
        }
        number += AT_ONCE * stride;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_operation_survives_a_failure_at_any_step() {
    for operation in OPERATIONS {
        fail_at_any_step(operation, disk).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_survive_one_where_objects_are_made_of_parts() {
    let uploads: Vec<&Operation> = OPERATIONS
        .iter()
        .filter(|it| it.name.contains("upload") || it.name.contains("pushing"))
        .collect();
    assert!(uploads.len() > 3, "{}", uploads.len());
    for operation in uploads {
        fail_at_any_step(operation, parts).await;
    }
}

/// A failure that an operation answers with, whatever it is.
pub(crate) type Outcome = Result<(), Error>;
