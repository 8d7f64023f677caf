//! What bytes cost: their digest, and pieces from and to the disk.

use std::time::{Duration, Instant};

use berth_shared::digest::Algorithm;
use bytes::Bytes;
use criterion::{Criterion, Throughput};
use futures_util::TryStreamExt;
use registry_server::storage::{Draft, Location, ObjectWriter, Store, disk::DiskStore};
use tokio::runtime::Runtime;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// What a request brings at once, roughly.
const CHUNK: usize = 64 * KIB;

/// Where an object is given up and the next one begun.
const OBJECT_BYTES_MAX: u64 = 256 * MIB as u64;

/// The digest of what is pushed.
pub(crate) fn digest(criterion: &mut Criterion) {
    let content = vec![7; MIB];
    let mut group = criterion.benchmark_group("digest of 1 MiB");
    group.throughput(Throughput::Bytes(MIB as u64));
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        group.bench_function(algorithm.name(), |bencher| {
            bencher.iter(|| algorithm.digest(&content))
        });
    }
    group.finish();
}

/// Objects that lie in memory are read, and one is written, which reaches the disk when it likes.
pub(crate) fn pieces(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let directory = tempfile::tempdir().expect("a directory");
    let store = DiskStore::open(directory.path()).expect("a store").without_durability();
    let mut group = criterion.benchmark_group("disk");
    for (name, bytes) in [("read 10 KiB", 10 * KIB), ("read 64 KiB", CHUNK), ("read 1 MiB", MIB)] {
        let location = runtime.block_on(write(&store, bytes));
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                assert_eq!(runtime.block_on(read(&store, &location, bytes)), bytes);
            });
        });
    }
    group.throughput(Throughput::Bytes(CHUNK as u64));
    group.bench_function("write 64 KiB", |bencher| {
        bencher.iter_custom(|count| runtime.block_on(append(&store, count)));
    });
    group.finish();
}

async fn open(store: &DiskStore) -> (Location, Box<dyn ObjectWriter>) {
    let location = Location::fresh().expect("a location");
    let writer = store.open(Draft::of(location.clone(), 0)).await.expect("a writer");
    (location, writer)
}

/// Makes an object of so many bytes.
async fn write(store: &DiskStore, bytes: usize) -> Location {
    let (_, mut writer) = open(store).await;
    writer.append(vec![vec![7; bytes].into()]).await.expect("written");
    writer.finish().await.expect("an object").location
}

async fn read(store: &DiskStore, location: &Location, bytes: usize) -> usize {
    let part = 0..bytes as u64;
    let pieces = store.read(None, location, part).await.expect("an object");
    pieces.try_fold(0, |read, piece| async move { Ok(read + piece.len()) }).await.expect("read")
}

/// How long it takes to append so many chunks, beginning a new object now and then.
async fn append(store: &DiskStore, count: u64) -> Duration {
    let chunk = Bytes::from(vec![7; CHUNK]);
    let mut taken = Duration::ZERO;
    let mut left = count;
    while left > 0 {
        let some = left.min(OBJECT_BYTES_MAX / CHUNK as u64);
        let (location, mut writer) = open(store).await;
        let begun = Instant::now();
        for _ in 0..some {
            writer.append(vec![chunk.clone()]).await.expect("written");
        }
        taken += begun.elapsed();
        drop(writer);
        store.delete(&[Draft::of(location, 0)]).await;
        left -= some;
    }
    taken
}
