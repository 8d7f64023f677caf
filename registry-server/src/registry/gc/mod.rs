//! Garbage collection: what nothing keeps alive goes, while pushes and pulls go on.
//!
//! It reads page by page, and deletes in short transactions that look again. A row goes before its
//! object, so what a crash leaves behind is an object without a row, and the next run takes that.

mod untagged;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use berth_shared::{clock::UnixSeconds, telemetry::chain};
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

use super::{
    Error,
    backend::Backend,
    event::{Event, Events, Kind},
    lease::{Lease, Work},
    upload::Uploads,
};
use crate::{
    metadata::{
        self, Database, Rows,
        collection::{Collected, Stale},
        dead::Place,
        repository::RepositoryId,
    },
    storage::{self, Dead, Location},
};

/// Rows that are looked at in one query.
const PAGE: u32 = 1000;

/// Rows that are deleted in one transaction at most: what a push may have to wait for.
const STEP: usize = 20;

/// Why a blob leaves a repository.
const UNNAMED: &str = "no manifest here names it";

/// Why an object goes.
const UNOWNED: &str = "no blob and no upload session owns it";

/// When things go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How often collection runs by itself; `None` for only on demand.
    pub interval: Option<Duration>,
    /// How long a blob that no manifest names stays after its last touch.
    pub grace: Duration,
    /// How long an object stays that was a blob's: who reads it comes to an end, and rows of a while ago
    /// find theirs.
    pub objects_kept: Duration,
    /// How old an object without a row must be.
    pub orphans_after: Duration,
    /// How long a manifest that no tag, index or subject names stays; `None` for ever.
    pub untagged_after: Option<Duration>,
}

/// What a collection did, or would do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Whether nothing was really removed.
    pub dry_run: bool,
    /// Manifests.
    pub manifests: u64,
    /// Blobs that left a repository and are still held by another.
    pub links: u64,
    /// Blobs.
    pub blobs: u64,
    /// Upload sessions.
    pub uploads: u64,
    /// Objects that nothing owned.
    pub orphans: u64,
    /// Repositories without content.
    pub repositories: u64,
    /// Bytes that are free now.
    pub bytes: u64,
    /// Entries that could not be worked on.
    pub problems: u64,
    /// The longest time that other writers had to wait for a step, in microseconds.
    pub longest_step_micros: u64,
    /// How long it took, in milliseconds.
    pub millis: u64,
}

/// Collects garbage; clones share their turns.
#[derive(Debug, Clone)]
pub struct Collector {
    backend: Backend,
    uploads: Uploads,
    /// Held by whoever copies objects; objects are deleted while nobody does.
    holds: Arc<tokio::sync::RwLock<()>>,
    /// One collection at a time.
    maintenance: Arc<tokio::sync::Mutex<()>>,
}

impl Collector {
    pub(super) fn new(
        backend: Backend,
        uploads: Uploads,
        maintenance: Arc<tokio::sync::Mutex<()>>,
    ) -> Self {
        Self { backend, uploads, holds: Arc::default(), maintenance }
    }

    /// Keeps every stored object from being deleted until the result is dropped.
    pub(crate) async fn hold(&self) -> tokio::sync::OwnedRwLockReadGuard<()> {
        Arc::clone(&self.holds).read_owned().await
    }

    /// Removes what nothing keeps alive, and tells `events` what goes and why.
    ///
    /// # Errors
    /// When database or store fail, and when nobody listens any more.
    pub fn collect<'r>(&'r self, events: &'r Events) -> BoxFuture<'r, Result<Summary, Error>> {
        Box::pin(async move {
            let _turn = self.maintenance.lock().await;
            let lease = self.backend.lease(Work::Collection, events).await?;
            self.collect_under(lease, events).await
        })
    }

    /// The same, unless another server does so, or has for the last `interval`: then `None`.
    ///
    /// # Errors
    /// As `collect`.
    pub(crate) async fn collect_due(
        &self,
        interval: Duration,
        events: &Events,
    ) -> Result<Option<Summary>, Error> {
        let _turn = self.maintenance.lock().await;
        let Some(lease) = self.backend.lease_due(Work::Collection, interval).await? else {
            return Ok(None);
        };
        self.collect_under(lease, events).await.map(Some)
    }

    async fn collect_under(&self, lease: Lease, events: &Events) -> Result<Summary, Error> {
        let mut collection = Collection::new(self, lease, events);
        let ended = collection.run().await;
        match ended {
            Ok(()) => collection.lease.done(self.backend.clock.now()).await,
            Err(_) => collection.lease.end().await,
        }
        ended.map(|()| collection.done)
    }

    /// Tells what [`collect`](Self::collect) would remove now: it is run on a copy of the database.
    ///
    /// # Errors
    /// As `collect`.
    pub fn collect_dry<'r>(&'r self, events: &'r Events) -> BoxFuture<'r, Result<Summary, Error>> {
        Box::pin(async move {
            let (database, _directory) = self.backend.database.copy().await?;
            let backend = self.backend.dry(database);
            let copy = Self::new(backend.clone(), self.uploads.on(backend), Arc::default());
            let summary = copy.collect(events).await?;
            Ok(Summary { dry_run: true, ..summary })
        })
    }
}

struct Collection {
    backend: Backend,
    database: Database,
    sessions: Uploads,
    holds: Arc<tokio::sync::RwLock<()>>,
    lease: Lease,
    events: Events,
    settings: Settings,
    now: UnixSeconds,
    done: Summary,
}

impl Collection {
    fn new(collector: &Collector, lease: Lease, events: &Events) -> Self {
        let Collector { backend, uploads, holds, .. } = collector.clone();
        Self {
            settings: backend.settings().collection,
            now: backend.clock.now(),
            database: backend.database.clone(),
            backend,
            sessions: uploads,
            holds,
            lease,
            events: events.clone(),
            done: Summary::default(),
        }
    }

    async fn run(&mut self) -> Result<(), Error> {
        let started = Instant::now();
        self.dead_objects().await?;
        self.uploads().await?;
        if let Some(after) = self.settings.untagged_after {
            self.untagged(self.now - after).await?;
        }
        self.links(self.now - self.settings.grace).await?;
        self.unlinked().await?;
        self.orphans(self.now - self.settings.orphans_after).await?;
        self.repositories().await?;
        self.done.millis = millis(started.elapsed());
        Ok(())
    }

    /// Whether nothing has come up since the last step that ends it.
    fn may_go_on(&self) -> Result<(), Error> {
        self.lease.check()?;
        self.backend.refuse_when_read_only()
    }

    async fn uploads(&mut self) -> Result<(), Error> {
        let idle_since = self.backend.idle_since();
        let mut last = String::new();
        loop {
            let idle = self.database.idle_uploads(&last, idle_since, PAGE).await?;
            let Some((end, _)) = idle.last() else { return Ok(()) };
            last.clone_from(end);
            let words = |id, error| format!("upload session {id:?}: {error}");
            for upload in self.readable(idle, words).await? {
                self.may_go_on()?;
                if !self.sessions.end_idle(&upload, idle_since).await? {
                    continue;
                }
                let (bytes, why) = (upload.draft.received, "nobody went on with it");
                self.done.uploads += 1;
                self.done.bytes += bytes;
                let repository = Some(upload.repository.as_str());
                self.say(Kind::Upload, repository, upload.id.as_str(), bytes, why).await?;
            }
        }
    }

    async fn links(&mut self, cutoff: UnixSeconds) -> Result<(), Error> {
        let mut next = Some(Default::default());
        while let Some(from) = next {
            let found;
            (found, next) = self.database.stale_links(&from, PAGE, cutoff).await?;
            let stale = self.readable(found, unreadable).await?;
            let mut left = stale.as_slice();
            while !left.is_empty() {
                let tried = self.unlink(&left[..left.len().min(STEP)], cutoff).await?;
                left = &left[tried..];
            }
        }
        Ok(())
    }

    /// Gives how many of the step one transaction held.
    async fn unlink(&mut self, step: &[Stale], cutoff: UnixSeconds) -> Result<usize, Error> {
        // A backup that is being written needs every object until it has its copy.
        let free = Arc::clone(&self.holds).write_owned().await;
        self.may_go_on()?;
        let started = Instant::now();
        let collected = self.database.collect_links(step.to_vec(), cutoff, self.due()).await?;
        self.step_took(started);
        let (tried, mut freed) = (collected.len(), Vec::new());
        for (Stale { repository, digest, .. }, collected) in step.iter().zip(collected) {
            match collected {
                Collected::Kept => {}
                Collected::Unlinked => {
                    self.done.links += 1;
                    let (repository, digest) = (Some(repository.as_str()), digest.as_str());
                    self.say(Kind::Link, repository, digest, 0, UNNAMED).await?;
                }
                Collected::Freed(dead) => freed.push((repository, digest, dead)),
            }
        }
        let dead: Vec<Dead> = freed.iter().map(|(.., dead)| dead.clone()).collect();
        let bytes = self.free_blobs(&dead).await?;
        for ((repository, digest, _), bytes) in freed.into_iter().zip(bytes) {
            self.done.blobs += 1;
            let (repository, digest) = (Some(repository.as_str()), digest.as_str());
            self.say(Kind::Blob, repository, digest, bytes.unwrap_or(0), UNNAMED).await?;
        }
        drop(free);
        Ok(tried)
    }

    async fn unlinked(&mut self) -> Result<(), Error> {
        let mut next = Some(String::new());
        while let Some(last) = next {
            let found;
            (found, next) = self.database.unlinked_blobs(&last, PAGE).await?;
            let words = |(digest, location): (String, String), _| {
                format!("blob {digest:?} at {location:?} cannot be read")
            };
            for (digest, _) in self.readable(found, words).await? {
                let free = Arc::clone(&self.holds).write_owned().await;
                self.may_go_on()?;
                if let Some(dead) = self.database.collect_unlinked(&digest, self.due()).await? {
                    let bytes =
                        self.free_blobs(&[dead]).await?.first().copied().flatten().unwrap_or(0);
                    self.done.blobs += 1;
                    let why = "no repository holds it";
                    self.say(Kind::Blob, None, digest.as_str(), bytes, why).await?;
                }
                drop(free);
            }
        }
        Ok(())
    }

    /// When an object may be deleted that is a blob's until now.
    fn due(&self) -> UnixSeconds {
        self.now + i64::try_from(self.settings.objects_kept.as_secs()).unwrap_or(i64::MAX)
    }

    /// Deletes objects that were blobs', or leaves them for a while. Gives the bytes of each that go.
    async fn free_blobs(&mut self, dead: &[Dead]) -> Result<Vec<Option<u64>>, Error> {
        match self.settings.objects_kept {
            Duration::ZERO => self.free(dead).await,
            _ => Ok(dead.iter().map(|dead| Some(dead.received)).collect()),
        }
    }

    /// Deletes objects whose rows are gone; gives the bytes that are free for each: `None` where it
    /// cannot be deleted, and then the next run tries it again.
    async fn free(&mut self, dead: &[Dead]) -> Result<Vec<Option<u64>>, Error> {
        if self.backend.is_held().await? {
            return Ok(vec![None; dead.len()]);
        }
        let mut freed = Vec::with_capacity(dead.len());
        for (dead, deleted) in dead.iter().zip(self.backend.delete_objects(dead).await) {
            // All of them would be waited for in turn.
            if let Err(error @ storage::Error::Away { .. }) = deleted {
                return Err(error.into());
            }
            if let Err(error) = &deleted {
                self.problem(format!("deleting an object: {}", chain(error))).await?;
            }
            freed.push(deleted.is_ok().then_some(dead.received));
        }
        self.done.bytes += freed.iter().flatten().sum::<u64>();
        Ok(freed)
    }

    /// Deletes what was let go and is still there: somebody died in between, or it could not be deleted.
    async fn dead_objects(&mut self) -> Result<(), Error> {
        let mut last = Place::default();
        loop {
            let page = self.database.dead_objects(self.now, &last, PAGE).await?;
            let Some((end, _)) = page.last() else { return Ok(()) };
            last.clone_from(end);
            let words = |(_, location): Place, error| format!("object {location:?}: {error}");
            for step in self.readable(page, words).await?.chunks(STEP) {
                let free = Arc::clone(&self.holds).write_owned().await;
                self.may_go_on()?;
                let freed = self.free(step).await?;
                drop(free);
                for (dead, bytes) in step.iter().zip(freed) {
                    let Some(bytes) = bytes else { continue };
                    self.done.orphans += 1;
                    self.say(Kind::Orphan, None, dead.location.as_str(), bytes, UNOWNED).await?;
                }
            }
        }
    }

    async fn orphans(&mut self, cutoff: UnixSeconds) -> Result<(), Error> {
        // Elsewhere each object is named by a row before it is there.
        if !self.backend.store.is_local() {
            return Ok(());
        }
        for shard in 0..=u8::MAX {
            let listing = self.backend.store.list(shard).await?;
            for name in listing.strange {
                self.problem(format!("{name} lies among the objects and is none")).await?;
            }
            let owned = self.database.owned_in(shard).await?;
            for orphan in &owned.orphans(listing.objects) {
                self.delete_orphan(orphan, cutoff).await?;
            }
        }
        Ok(())
    }

    async fn delete_orphan(&mut self, orphan: &Location, cutoff: UnixSeconds) -> Result<(), Error> {
        let described = match self.backend.store.describe(orphan).await {
            Ok(described) => described,
            // Somebody else deleted it.
            Err(storage::Error::NotFound(_)) => return Ok(()),
            Err(error) => return self.problem(chain(&error)).await,
        };
        if described.changed >= cutoff {
            return Ok(());
        }
        self.may_go_on()?;
        let dead = Dead::of(orphan.clone(), described.length);
        if let Some(Err(error)) = self.backend.remove_objects(&[dead]).await.pop() {
            return self.problem(format!("deleting an object: {}", chain(&error))).await;
        }
        self.done.orphans += 1;
        self.done.bytes += described.length;
        self.say(Kind::Orphan, None, orphan.as_str(), described.length, UNOWNED).await
    }

    async fn repositories(&mut self) -> Result<(), Error> {
        let mut next = Some(RepositoryId::default());
        while let Some(last) = next {
            let found;
            (found, next) = self.database.empty_repositories(last, PAGE).await?;
            for (id, name) in found {
                self.may_go_on()?;
                if self.database.delete_empty(id, name.clone()).await? {
                    self.done.repositories += 1;
                    let why = "it holds nothing";
                    self.say(Kind::Repository, Some(&name), &name, 0, why).await?;
                }
            }
        }
        Ok(())
    }

    /// What can be read; the rest is reported.
    async fn readable<K, R>(
        &mut self,
        rows: Rows<K, R>,
        words: impl Fn(K, metadata::Error) -> String,
    ) -> Result<Vec<R>, Error> {
        let (readable, problems) = self.events.readable(rows, words).await?;
        self.done.problems += problems;
        Ok(readable)
    }

    async fn say(
        &self,
        kind: Kind,
        repository: Option<&str>,
        name: &str,
        bytes: u64,
        why: &str,
    ) -> Result<(), Error> {
        let (repository, name) = (repository.map(str::to_owned), name.to_owned());
        self.events.say(Event::Gone { kind, repository, name, bytes, why: why.to_owned() }).await
    }

    async fn problem(&mut self, message: String) -> Result<(), Error> {
        self.done.problems += 1;
        self.events.problem(message).await
    }

    fn step_took(&mut self, started: Instant) {
        let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.done.longest_step_micros = self.done.longest_step_micros.max(micros);
    }
}

/// What something is called that a repository holds and that cannot be read.
fn unreadable(names: (String, String, Option<String>), _: metadata::Error) -> String {
    let (repository, digest, place) = names;
    format!("{digest:?} of {repository:?} at {:?} cannot be read", place.unwrap_or_default())
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
