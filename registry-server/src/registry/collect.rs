//! Garbage collection: what nothing keeps alive goes, while pushes and pulls go on.
//!
//! It reads page by page, and deletes in short transactions that look again. A row goes before its
//! object, so what a crash leaves behind is an object without a row, and the next run takes that.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use berth_shared::{clock::UnixSeconds, digest::Digest, name::RepositoryName, telemetry::chain};
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

use super::{
    Error, Registry,
    event::{Event, Events, Kind},
};
use crate::{
    metadata::collection::{Collected, Cursor, Freed, Stale},
    storage::Location,
};

/// Rows that are looked at in one query.
const PAGE: u32 = 1000;

/// Rows that are deleted in one transaction: what a push may have to wait for.
const STEP: usize = 50;

/// When things go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How often collection runs by itself; `None` for only on demand.
    pub interval: Option<Duration>,
    /// How long a blob that no manifest names stays after its last touch.
    pub grace: Duration,
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
    /// How many blobs of repositories were looked at.
    pub examined: u64,
    /// The longest time that other writers had to wait for a step, in microseconds.
    pub longest_step_micros: u64,
    /// How long it took, in milliseconds.
    pub millis: u64,
}

impl Registry {
    /// Removes what nothing keeps alive, and tells `events` what goes and why.
    ///
    /// # Errors
    /// When database or store fail, and when nobody listens any more.
    pub fn collect<'r>(&'r self, events: &'r Events) -> BoxFuture<'r, Result<Summary, Error>> {
        Box::pin(async move {
            let _turn = self.maintenance.lock().await;
            Collection::new(self, events).run().await
        })
    }

    /// Tells what [`collect`](Self::collect) would remove now: it is run on a copy of the database.
    ///
    /// # Errors
    /// As `collect`.
    pub fn collect_dry<'r>(&'r self, events: &'r Events) -> BoxFuture<'r, Result<Summary, Error>> {
        Box::pin(async move {
            let (copy, _directory) = self.copy_without_effect().await?;
            let summary = copy.collect(events).await?;
            Ok(Summary { dry_run: true, ..summary })
        })
    }
}

struct Collection {
    registry: Registry,
    events: Events,
    settings: Settings,
    now: UnixSeconds,
    done: Summary,
}

impl Collection {
    fn new(registry: &Registry, events: &Events) -> Self {
        Self {
            registry: registry.clone(),
            events: events.clone(),
            settings: registry.settings().collection,
            now: registry.clock.now(),
            done: Summary::default(),
        }
    }

    async fn run(mut self) -> Result<Summary, Error> {
        let started = Instant::now();
        self.uploads().await?;
        if let Some(after) = self.settings.untagged_after {
            self.untagged(before(self.now, after)).await?;
        }
        self.links(before(self.now, self.settings.grace)).await?;
        self.unlinked().await?;
        self.orphans(before(self.now, self.settings.orphans_after)).await?;
        self.repositories().await?;
        self.done.millis = millis(started.elapsed());
        Ok(self.done)
    }

    async fn uploads(&mut self) -> Result<(), Error> {
        for upload in self.registry.end_idle_uploads().await? {
            self.done.uploads += 1;
            self.done.bytes += upload.received;
            self.say(
                Kind::Upload,
                Some(upload.repository.as_str()),
                upload.id.as_str(),
                upload.received,
                "nobody went on with it",
            )
            .await?;
        }
        Ok(())
    }

    async fn untagged(&mut self, cutoff: UnixSeconds) -> Result<(), Error> {
        for id in self.registry.database.repository_ids().await? {
            let mut left = self.registry.database.unreached_manifests(id, cutoff).await?;
            // What is named goes after what names it, so a chain takes as many rounds as it has links.
            loop {
                let before = left.len();
                left = self.delete_manifests(left, cutoff).await?;
                if left.is_empty() || left.len() == before {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Deletes those that nothing above keeps any more, and gives back the others.
    async fn delete_manifests(
        &mut self,
        manifests: Vec<Stale>,
        cutoff: UnixSeconds,
    ) -> Result<Vec<Stale>, Error> {
        let mut kept = Vec::new();
        for step in manifests.chunks(STEP) {
            let readable = self.readable(step).await?;
            let work = readable.clone();
            let started = Instant::now();
            let gone: Vec<bool> = self
                .registry
                .database
                .write(move |tx| {
                    Box::pin(async move {
                        let mut gone = Vec::with_capacity(work.len());
                        for (stale, repository, digest) in &work {
                            gone.push(
                                tx.collect_manifest(repository, stale, digest, cutoff).await?,
                            );
                        }
                        Ok::<_, Error>(gone)
                    })
                })
                .await?;
            self.step_took(started);
            for ((stale, repository, digest), gone) in readable.into_iter().zip(gone) {
                if !gone {
                    kept.push(stale);
                    continue;
                }
                self.done.manifests += 1;
                let why = "no tag, index or subject names it";
                let name = digest.as_str();
                let bytes = u64::try_from(stale.size).unwrap_or(0);
                self.say(Kind::Manifest, Some(repository.as_str()), name, bytes, why).await?;
            }
        }
        Ok(kept)
    }

    async fn links(&mut self, cutoff: UnixSeconds) -> Result<(), Error> {
        let mut cursor = Cursor::default();
        loop {
            let part = self.registry.database.stale_links(&cursor, PAGE, cutoff).await?;
            self.done.examined += u64::from(PAGE);
            for step in part.found.chunks(STEP) {
                self.unlink(step, cutoff).await?;
            }
            let Some(next) = part.next else { return Ok(()) };
            cursor = next;
        }
    }

    async fn unlink(&mut self, step: &[Stale], cutoff: UnixSeconds) -> Result<(), Error> {
        let readable = self.readable(step).await?;
        let work = readable.clone();
        // A backup that is being written needs every object until it has its copy.
        let free = Arc::clone(&self.registry.holds).write_owned().await;
        let started = Instant::now();
        let collected: Vec<Collected> = self
            .registry
            .database
            .write(move |tx| {
                Box::pin(async move {
                    let mut collected = Vec::with_capacity(work.len());
                    for (stale, _, digest) in &work {
                        collected.push(tx.collect_link(stale, digest, cutoff).await?);
                    }
                    Ok::<_, Error>(collected)
                })
            })
            .await?;
        self.step_took(started);
        for ((_, repository, digest), collected) in readable.iter().zip(collected) {
            let (kind, bytes) = match &collected {
                Collected::Kept => continue,
                Collected::Unlinked => (Kind::Link, 0),
                Collected::Freed(freed) => (Kind::Blob, self.free(freed).await?),
            };
            let why = "no manifest here names it";
            self.say(kind, Some(repository.as_str()), digest.as_str(), bytes, why).await?;
            match kind {
                Kind::Link => self.done.links += 1,
                _ => self.done.blobs += 1,
            }
        }
        drop(free);
        Ok(())
    }

    async fn unlinked(&mut self) -> Result<(), Error> {
        let mut cursor = Cursor::default();
        loop {
            let part = self.registry.database.unlinked_blobs(&cursor, PAGE).await?;
            for digest in part.found {
                let Ok(digest) = digest.parse::<Digest>() else {
                    self.problem(format!("the database holds the blob {digest:?}, which is none"))
                        .await?;
                    continue;
                };
                self.delete_unlinked(digest).await?;
            }
            let Some(next) = part.next else { return Ok(()) };
            cursor = next;
        }
    }

    async fn delete_unlinked(&mut self, digest: Digest) -> Result<(), Error> {
        let free = Arc::clone(&self.registry.holds).write_owned().await;
        let name = digest.to_string();
        let freed = self
            .registry
            .database
            .write(move |tx| {
                Box::pin(async move { tx.delete_unlinked(&digest).await.map_err(Error::from) })
            })
            .await?;
        if let Some(freed) = freed {
            let bytes = self.free(&freed).await?;
            self.done.blobs += 1;
            self.say(Kind::Blob, None, &name, bytes, "no repository holds it").await?;
        }
        drop(free);
        Ok(())
    }

    /// Deletes an object whose row is gone; gives the bytes that are free for it.
    async fn free(&mut self, freed: &Freed) -> Result<u64, Error> {
        match self.registry.store.delete(&freed.location).await {
            Ok(()) => {
                self.done.bytes += freed.size;
                Ok(freed.size)
            }
            Err(error) => {
                self.problem(format!("deleting an object: {}", chain(&error))).await?;
                Ok(0)
            }
        }
    }

    async fn orphans(&mut self, cutoff: UnixSeconds) -> Result<(), Error> {
        for shard in 0..=u8::MAX {
            let listing = self.registry.store.list(shard).await?;
            for name in listing.strange {
                self.problem(format!("{name} lies among the objects and is none")).await?;
            }
            // Rows are read after the objects: a row is there before its object is.
            let first = format!("{shard:02x}");
            let end = shard.checked_add(1).map_or("g".into(), |next| format!("{next:02x}"));
            let owned = self.registry.database.locations_between(&first, &end).await?;
            let is_owned = |location: &Location| {
                owned.binary_search_by(|it| it.as_str().cmp(location.as_str())).is_ok()
            };
            let mut orphans = listing.objects;
            orphans.retain(|it| !is_owned(it));
            for orphan in &orphans {
                self.delete_orphan(orphan, cutoff).await?;
            }
        }
        Ok(())
    }

    async fn delete_orphan(&mut self, orphan: &Location, cutoff: UnixSeconds) -> Result<(), Error> {
        let described = match self.registry.store.describe(orphan).await {
            Ok(described) => described,
            // Somebody else deleted it.
            Err(crate::storage::Error::NotFound(_)) => return Ok(()),
            Err(error) => return self.problem(chain(&error)).await,
        };
        if described.changed >= cutoff {
            return Ok(());
        }
        let freed = Freed { location: orphan.clone(), size: described.length };
        let bytes = self.free(&freed).await?;
        self.done.orphans += 1;
        let why = "no blob and no upload session owns it";
        self.say(Kind::Orphan, None, orphan.as_str(), bytes, why).await
    }

    async fn repositories(&mut self) -> Result<(), Error> {
        for empty in self.registry.database.empty_repositories().await? {
            let name = empty.name.clone();
            let gone = self
                .registry
                .database
                .write(move |tx| {
                    Box::pin(async move { tx.delete_empty(&empty).await.map_err(Error::from) })
                })
                .await?;
            if gone {
                self.done.repositories += 1;
                self.say(Kind::Repository, Some(&name), &name, 0, "it holds nothing").await?;
            }
        }
        Ok(())
    }

    /// What can be read of a step; the rest is reported.
    async fn readable(
        &mut self,
        step: &[Stale],
    ) -> Result<Vec<(Stale, RepositoryName, Digest)>, Error> {
        let mut readable = Vec::with_capacity(step.len());
        for stale in step {
            match (stale.repository.parse(), stale.digest.parse()) {
                (Ok(repository), Ok(digest)) => readable.push((stale.clone(), repository, digest)),
                _ => {
                    let Stale { repository, digest, .. } = stale;
                    self.problem(format!(
                        "the database holds {digest:?} in {repository:?}: skipped"
                    ))
                    .await?;
                }
            }
        }
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

/// `duration` before `now`.
pub(super) fn before(now: UnixSeconds, duration: Duration) -> UnixSeconds {
    now.saturating_sub_unsigned(duration.as_secs())
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
