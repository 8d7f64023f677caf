//! What the hot path asks for, kept in memory: always under a repository, never under a digest
//! alone, and dropped by the commit that deletes or moves it.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use moka::sync::Cache as Moka;
use parking_lot::Mutex;

use super::{Value, key::Key};

/// How much the cache may hold, in bytes.
const BYTES_MAX: u64 = 16 * 1024 * 1024;

/// A manifest larger than this is read from the database each time. The cache holds some more
/// entries than it may until it tidies up, after 64 of them.
const MANIFEST_BYTES_MAX: usize = 64 * 1024;

/// How long something is kept that another process may delete meanwhile.
const SHARED_TIME: Duration = Duration::from_secs(10);

/// The cache in front of the database.
#[derive(Debug)]
pub(crate) struct Cache {
    entries: Moka<Key, Value>,
    /// Whether this process alone writes the database.
    is_ours: bool,
    /// Counts commits that made something stale. What was read before such a commit is not kept
    /// after it: it may be the very thing that the commit changed.
    generation: Mutex<Generation>,
    hits: AtomicU64,
    misses: AtomicU64,
}

/// When a value was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Generation(u64);

impl Cache {
    /// In front of a database in which this process alone writes.
    pub(super) fn new() -> Self {
        Self::of(Moka::builder().max_capacity(BYTES_MAX).weigher(weigh).build(), true)
    }

    /// In front of one in which others write too, unheard: what is deleted there is found by its digest
    /// for a while. Where tags lead is not kept.
    pub(super) fn shared() -> Self {
        let entries = Moka::builder().max_capacity(BYTES_MAX).weigher(weigh);
        Self::of(entries.time_to_live(SHARED_TIME).build(), false)
    }

    fn of(entries: Moka<Key, Value>, is_ours: bool) -> Self {
        let generation = Mutex::new(Generation(0));
        let (hits, misses) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { entries, is_ours, generation, hits, misses }
    }

    /// Whether what it holds is so until this process changes it.
    pub(super) fn is_ours(&self) -> bool {
        self.is_ours
    }

    /// How many looks found what they were for, and how many did not.
    pub(crate) fn looks(&self) -> (u64, u64) {
        (self.hits.load(Ordering::Relaxed), self.misses.load(Ordering::Relaxed))
    }

    /// What it holds, as it is weighed.
    pub(crate) fn bytes(&self) -> u64 {
        self.entries.weighted_size()
    }

    pub(super) fn get(&self, key: &Key) -> Option<Value> {
        let found = self.entries.get(key);
        let counter = if found.is_some() { &self.hits } else { &self.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        found
    }

    /// To be asked before the database is read.
    pub(super) fn generation(&self) -> Generation {
        *self.generation.lock()
    }

    pub(super) fn invalidate(&self, stale: &[Key]) {
        if stale.is_empty() {
            return;
        }
        let mut generation = self.generation.lock();
        generation.0 += 1;
        for key in stale {
            match key {
                Key::BlobEverywhere => self.entries.invalidate_all(),
                Key::Blob(..) | Key::Manifest(..) | Key::Tag(..) => self.entries.invalidate(key),
            }
        }
    }

    /// Keeps what was read, unless it is too large or may be stale.
    pub(super) fn keep(&self, read_at: Generation, key: Key, value: Value) {
        if matches!(&value, Value::Manifest(manifest) if manifest.bytes.len() > MANIFEST_BYTES_MAX)
        {
            return;
        }
        if matches!(&value, Value::Tag(_)) && !self.is_ours {
            return;
        }
        let generation = self.generation.lock();
        if *generation == read_at {
            self.entries.insert(key, value);
        }
    }
}

/// Names and digests count as 512 bytes, which is more than they take.
fn weigh(_: &Key, value: &Value) -> u32 {
    let bytes = match value {
        Value::Manifest(manifest) => manifest.bytes.len(),
        Value::Blob(_) | Value::Tag(_) => 0,
    };
    u32::try_from(bytes + 512).unwrap_or(u32::MAX)
}
