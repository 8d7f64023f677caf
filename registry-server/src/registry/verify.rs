//! Verification: every stored blob is read and hashed, at a bounded rate. What is not what its
//! digest says is no longer served, and a push of the same digest takes its place.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use berth_shared::{clock::UnixSeconds, digest::Digest, telemetry::chain};
use futures_util::{StreamExt, future::BoxFuture};
use serde::{Deserialize, Serialize};

use super::{
    Error,
    backend::Backend,
    event::{Event, Events},
    gc::millis,
    hash::Hasher,
    lease::{Lease, Work},
};
use crate::{
    metadata::{
        self, Database, Rows,
        blob::Blob,
        repository::RepositoryId,
        totals::BlobTotals,
        verification::{Checked, StoredManifest, TagLack},
    },
    storage::{self, Location},
};

/// Blobs that are read from the database at once.
const PAGE: u32 = 256;

/// Tags whose indexes are looked at in one query.
const TAGS_PAGE: u32 = 1000;

/// Images that a report names per blob.
const IMAGES_MAX: u32 = 20;

/// Sound blobs that are recorded in one transaction. A break loses so many checks at most.
const RECORDED_TOGETHER: usize = 32;

/// How often, and how fast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Each blob is looked at once in this time; `None` for only on demand.
    pub every: Option<Duration>,
    /// How many bytes are read in a second.
    pub bytes_per_sec_max: u64,
}

/// What a verification is to do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// Whether to serve again what was damaged and has sound bytes somewhere in the store.
    pub repair: bool,
    /// How many bytes to read in a second, if not as many as the settings say.
    pub bytes_per_sec_max: Option<u64>,
}

/// What a verification found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Blobs that were hashed.
    pub blobs: u64,
    /// Manifests that were hashed.
    pub manifests: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// How many are not what their digest says.
    pub damaged: u64,
    /// How many tags have an index that names manifests which are not there.
    #[serde(default)]
    pub incomplete: u64,
    /// How many are served again.
    pub repaired: u64,
    /// How long it took, in milliseconds.
    pub millis: u64,
}

/// What is wrong with an object that does not have the bytes of its blob.
type Wrong = &'static str;

const MISSING: Wrong = "its object is missing or too short";
const OTHER_BYTES: Wrong = "its object has other bytes";

/// Verifies; clones share their turn.
#[derive(Debug, Clone)]
pub struct Verifier {
    backend: Backend,
    /// Held against collection, which deletes what verification adopts.
    maintenance: Arc<tokio::sync::Mutex<()>>,
}

impl Verifier {
    pub(super) fn new(backend: Backend, maintenance: Arc<tokio::sync::Mutex<()>>) -> Self {
        Self { backend, maintenance }
    }

    /// Hashes everything that is stored.
    ///
    /// # Errors
    /// When database or store fail, and when nobody listens any more.
    pub fn verify<'r>(
        &'r self,
        options: Options,
        events: &'r Events,
    ) -> BoxFuture<'r, Result<Summary, Error>> {
        Box::pin(async move {
            if options.repair {
                self.backend.refuse_when_read_only()?;
            }
            // By the clock it may take hours, and both may be done at once.
            let lease = Lease::of_one();
            let mut verification = Verification::new(self, options, lease, events).await?;
            verification.manifests().await?;
            verification.incomplete_tags().await?;
            verification.blobs(None).await?;
            let may_search = options.repair && self.backend.store.is_local();
            if may_search && !verification.unsound.is_empty() {
                verification.search_orphans().await?;
            }
            Ok(verification.finish().await)
        })
    }

    /// Hashes what has not been hashed for as long as the settings say, unless another server does.
    ///
    /// # Errors
    /// As [`verify`](Self::verify).
    pub async fn verify_due(&self, events: &Events) -> Result<Summary, Error> {
        let Some(lease) = self.backend.lease_due(Work::Verification, Duration::ZERO).await? else {
            return Ok(Summary::default());
        };
        let mut verification = Verification::new(self, Options::default(), lease, events).await?;
        if let Some(every) = self.backend.settings().verification.every {
            verification.blobs(Some(self.backend.before(every))).await?;
        }
        Ok(verification.finish().await)
    }
}

struct Verification {
    backend: Backend,
    database: Database,
    maintenance: Arc<tokio::sync::Mutex<()>>,
    lease: Lease,
    events: Events,
    repair: bool,
    pace: Pace,
    started: Instant,
    done: Summary,
    total: BlobTotals,
    unsound: Vec<Blob>,
    /// Found sound, and not recorded yet.
    sound: Vec<Blob>,
}

impl Verification {
    async fn new(
        verifier: &Verifier,
        options: Options,
        lease: Lease,
        events: &Events,
    ) -> Result<Self, Error> {
        let Verifier { backend, maintenance } = verifier.clone();
        let rate =
            options.bytes_per_sec_max.unwrap_or(backend.settings().verification.bytes_per_sec_max);
        Ok(Self {
            total: backend.database.count_blobs().await?,
            database: backend.database.clone(),
            backend,
            maintenance,
            lease,
            events: events.clone(),
            repair: options.repair,
            pace: Pace::new(rate),
            started: Instant::now(),
            done: Summary::default(),
            unsound: Vec::new(),
            sound: Vec::new(),
        })
    }

    /// Each blob once, or each that is due since `cutoff`: one that cannot be read now waits for the
    /// next time.
    async fn blobs(&mut self, cutoff: Option<UnixSeconds>) -> Result<(), Error> {
        let mut last = Checked::default();
        loop {
            let page = match cutoff {
                None => self.database.blobs_after(&last, PAGE).await?,
                Some(_) if self.backend.is_read_only() => return Ok(()),
                Some(cutoff) => self.database.blobs_unchecked_since(cutoff, &last, PAGE).await?,
            };
            let Some((end, _)) = page.last() else { return Ok(()) };
            last.clone_from(end);
            self.page(page).await?;
        }
    }

    async fn finish(mut self) -> Summary {
        self.lease.end().await;
        self.done.millis = millis(self.started.elapsed());
        self.done
    }

    async fn manifests(&mut self) -> Result<(), Error> {
        let mut last = (RepositoryId::default(), String::new());
        loop {
            let page = self.database.manifests_after(&last, PAGE).await?;
            let Some((end, _)) = page.last() else { return Ok(()) };
            last.clone_from(end);
            let words =
                |(_, name): (RepositoryId, String), _| format!("a manifest is named {name:?}");
            for manifest in self.events.readable(page, words).await?.0 {
                let bytes = self.database.stored_bytes(&manifest).await?;
                let Some(bytes) = bytes else { continue };
                self.done.manifests += 1;
                let StoredManifest { id, repository, digest } = manifest;
                if digest.algorithm().digest(&bytes) != digest {
                    self.done.damaged += 1;
                    let what = format!("the manifest in {repository} has other bytes");
                    self.say_damaged(&digest, Some(id), what).await?;
                }
            }
        }
    }

    /// Tells each tag whose index names manifests that are not there, and counts it.
    async fn incomplete_tags(&mut self) -> Result<(), Error> {
        let is_sparse = self.backend.settings().limits.sparse_manifests;
        let mut last = (RepositoryId::default(), String::new());
        loop {
            let tags = self.database.lacks_after(&last, TAGS_PAGE).await?;
            let Some(end) = tags.last() else { return Ok(()) };
            last = (end.id, end.tag.clone());
            for TagLack { repository, tag, lacking, example, .. } in tags {
                let Some(example) = example else { continue };
                self.done.incomplete += 1;
                let image = format!("{repository}:{tag}");
                self.events.say(Event::Lacking { image, lacking, example, is_sparse }).await?;
            }
        }
    }

    async fn page(&mut self, page: Rows<Checked, Blob>) -> Result<(), Error> {
        let (blobs, _) = self.events.readable(page, unreadable_blob).await?;
        for blob in &blobs {
            self.lease.check()?;
            let found = match self.look_at(blob, &blob.location).await {
                Ok(found) => found,
                Err(Error::Store(error)) => {
                    let error = chain(&error);
                    self.events.problem(format!("reading {}: {error}", blob.digest)).await?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            self.done.blobs += 1;
            self.judge(blob, found).await?;
            self.progress().await?;
            if self.sound.len() >= RECORDED_TOGETHER {
                self.record_sound().await?;
            }
        }
        self.record_sound().await
    }

    /// Records those that were found sound since the last time: one wait for the disk for all.
    async fn record_sound(&mut self) -> Result<(), Error> {
        let sound = std::mem::take(&mut self.sound);
        if sound.is_empty() || self.backend.is_read_only() {
            return Ok(());
        }
        Ok(self.database.record_sound(sound, self.backend.clock.now()).await?)
    }

    async fn judge(&mut self, blob: &Blob, found: Option<Wrong>) -> Result<(), Error> {
        let what = match found {
            None if blob.damaged && self.repair => {
                let how = "its object holds the right bytes again";
                return self.put_right(blob, &blob.location, how).await;
            }
            None if !blob.damaged => {
                self.sound.push(blob.clone());
                return Ok(());
            }
            None => "marked as damaged; its bytes are right again: verify --repair",
            Some(wrong) => wrong,
        };
        // Replaced or collected meanwhile: then what was read says nothing.
        if self.backend.record_damage(blob).await? {
            self.done.damaged += 1;
            self.unsound.push(blob.clone());
            self.say_damaged(&blob.digest, None, what.to_owned()).await?;
        }
        Ok(())
    }

    async fn look_at(&mut self, blob: &Blob, location: &Location) -> Result<Option<Wrong>, Error> {
        let store = &self.backend.store;
        match store.length(location).await {
            Ok(length) if length == blob.size => {}
            Ok(_) | Err(storage::Error::NotFound(_)) => return Ok(Some(MISSING)),
            Err(error) => return Err(error.into()),
        }
        let mut object = match store.read(None, location, 0..blob.size).await {
            Err(storage::Error::NotFound(_)) => return Ok(Some(MISSING)),
            object => object?,
        };
        let mut hasher = Hasher::new(blob.digest.algorithm());
        while let Some(piece) = object.next().await {
            let piece = piece?;
            self.pace.wait_for(piece.len() as u64).await;
            self.done.bytes += piece.len() as u64;
            hasher.update(&[piece]);
        }
        Ok((hasher.finish() != blob.digest).then_some(OTHER_BYTES))
    }

    /// Looks for the bytes of damaged blobs among the objects that nothing owns.
    async fn search_orphans(&mut self) -> Result<(), Error> {
        // A collection would delete them meanwhile.
        let turn = Arc::clone(&self.maintenance).lock_owned().await;
        for shard in 0..=u8::MAX {
            let listing = self.backend.store.list(shard).await?;
            let owned = self.database.owned_in(shard).await?;
            for orphan in &owned.orphans(listing.objects) {
                self.try_orphan(orphan).await?;
            }
        }
        drop(turn);
        Ok(())
    }

    async fn try_orphan(&mut self, orphan: &Location) -> Result<(), Error> {
        let Ok(length) = self.backend.store.length(orphan).await else { return Ok(()) };
        for at in 0..self.unsound.len() {
            let blob = self.unsound[at].clone();
            if blob.size == length && self.look_at(&blob, orphan).await?.is_none() {
                self.unsound.swap_remove(at);
                return self.put_right(&blob, orphan, "another object holds its bytes").await;
            }
        }
        Ok(())
    }

    async fn put_right(&mut self, blob: &Blob, sound: &Location, how: &str) -> Result<(), Error> {
        self.backend.refuse_when_read_only()?;
        if self.database.repair(blob, sound, self.backend.clock.now()).await? {
            self.done.repaired += 1;
            let event = Event::Repaired { digest: blob.digest.clone(), how: how.to_owned() };
            self.events.say(event).await?;
        }
        Ok(())
    }

    async fn say_damaged(
        &self,
        digest: &Digest,
        manifest_of: Option<RepositoryId>,
        what: String,
    ) -> Result<(), Error> {
        let images = self.database.images_with(digest, manifest_of, IMAGES_MAX).await?;
        self.events.say(Event::Damaged { digest: digest.clone(), what, images }).await
    }

    async fn progress(&self) -> Result<(), Error> {
        let Self { done, total, .. } = self;
        self.events.progress((done.blobs, total.count), (done.bytes, total.bytes)).await
    }
}

/// What a blob is called that cannot be read out of its row.
pub(crate) fn unreadable_blob((_, digest): Checked, _: metadata::Error) -> String {
    format!("blob {digest:?} cannot be read")
}

/// How far reading may be ahead of its rate.
const BURST: Duration = Duration::from_millis(20);

/// Keeps reading at a rate.
struct Pace {
    bytes_per_sec: u64,
    next: tokio::time::Instant,
}

impl Pace {
    fn new(bytes_per_sec: u64) -> Self {
        Self { bytes_per_sec: bytes_per_sec.max(1), next: tokio::time::Instant::now() }
    }

    /// Waits until `bytes` more may be read. Timers are coarse, so what is less than a burst ahead
    /// goes on at once.
    async fn wait_for(&mut self, bytes: u64) {
        let now = tokio::time::Instant::now();
        let takes = Duration::from_secs(1).mul_f64(bytes as f64 / self.bytes_per_sec as f64);
        self.next = self.next.max(now) + takes;
        if self.next - now > BURST {
            tokio::time::sleep_until(self.next).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn reading_keeps_to_its_rate_over_many_small_pieces_and_large_ones() {
        for piece in [100, 1_000, 300_000] {
            let mut pace = Pace::new(1_000_000);
            let started = tokio::time::Instant::now();
            for _ in 0..3_000_000 / piece {
                pace.wait_for(piece).await;
            }
            let took = started.elapsed().as_secs_f64();
            // A timer is up to a millisecond late, each time.
            assert!((2.9..=3.2).contains(&took), "pieces of {piece} bytes took {took} s");
        }
    }
}
