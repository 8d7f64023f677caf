//! What every part of the registry stands on: the database, the store, the time, and the settings in
//! force.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use berth_shared::{
    clock::{Clock, UnixSeconds},
    digest::Digest,
    telemetry::chain,
};
use tokio::sync::Semaphore;

use super::{
    Error, Settings,
    event::{Event, Events},
    lease::{Lease, Work},
};
use crate::{
    metadata::{self, Asker, Database, Key, blob::Blob, lease::Kind, switch::Switch},
    storage::{self, Dead, Location, Store},
};

/// How long a request may be on its way to a store elsewhere, in seconds: none takes nearly as long.
const LATE_SECS: i64 = 60 * 60;

/// Calls to a store elsewhere that delete something nobody waits for, at once.
const DROPS_MAX: usize = 32;

/// What is known here about a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Known {
    /// It is held, with so many bytes.
    Sound(u64),
    /// Its object is not what the row says.
    Unsound(Location),
    /// Nothing.
    Nothing,
}

/// The backend of one registry; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Backend {
    pub(crate) database: Database,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Clock,
    pub(super) settings: Arc<ArcSwap<Settings>>,
    /// Places for objects that are being deleted while nobody waits.
    dropping: Arc<Semaphore>,
    /// Whether objects stay where they lie, whatever goes: a dry run is on a copy of the database.
    deletes_nothing: bool,
}

impl Backend {
    pub(super) fn new(
        database: Database,
        store: Arc<dyn Store>,
        clock: Clock,
        settings: Settings,
    ) -> Self {
        database.limit_writes(settings.limits.write_time);
        let settings = Arc::new(ArcSwap::from_pointee(settings));
        let dropping = Arc::new(Semaphore::new(DROPS_MAX));
        Self { database, store, clock, settings, dropping, deletes_nothing: false }
    }

    /// The same store under a copy of the database, where what goes is only said to.
    pub(super) fn dry(&self, database: Database) -> Self {
        // What may not be changed may still be asked about.
        let settings = Settings { read_only: false, ..self.settings() };
        let dry = Self::new(database, Arc::clone(&self.store), self.clock.clone(), settings);
        Self { deletes_nothing: true, ..dry }
    }

    /// What holds at the moment.
    pub(crate) fn settings(&self) -> Settings {
        **self.settings.load()
    }

    /// Whether nothing may be changed.
    pub(super) fn is_read_only(&self) -> bool {
        self.refuse_when_read_only().is_err()
    }

    /// Whether other servers may work on the same registry.
    pub(super) fn is_shared(&self) -> bool {
        self.database.connections().is_some() && !self.store.is_local()
    }

    /// The right to do work that one server does at a time, when it has the turn.
    pub(super) async fn lease(&self, work: Work, events: &Events) -> Result<Lease, Error> {
        if !self.is_shared() {
            return Ok(Lease::of_one());
        }
        let what = format!("another server has the turn at {}, and this follows", work.name());
        let told = async || events.say(Event::Waiting { what }).await;
        Lease::wait_for(&self.database, &self.clock, work, told).await
    }

    /// The same, where no other does the work and none has come to its end with it for so long.
    pub(super) async fn lease_due(
        &self,
        work: Work,
        every: Duration,
    ) -> Result<Option<Lease>, Error> {
        if !self.is_shared() {
            return Ok(Some(Lease::of_one()));
        }
        Ok(Lease::take(&self.database, &self.clock, work, self.before(every)).await?)
    }

    /// Whether another process keeps stored objects from being deleted. To be asked when the rows are gone
    /// and before the objects are: whoever holds them looks at the rows behind that.
    pub(super) async fn is_held(&self) -> Result<bool, Error> {
        Ok(self.is_shared() && self.database.has_lease(Kind::Hold, self.clock.now()).await?)
    }

    /// Whoever makes the registry read-only counts on it that nothing changes from then on.
    pub(crate) fn refuse_when_read_only(&self) -> Result<(), Error> {
        let switch = self.database.switch();
        if self.settings.load().read_only || switch.is_some_and(Switch::is_set) {
            return Err(Error::ReadOnly);
        }
        if switch.is_some_and(Switch::is_unknown) { Err(Error::SwitchUnknown) } else { Ok(()) }
    }

    pub(super) async fn refuse_when_full(&self) -> Result<(), Error> {
        let free = self.store.free_bytes().await?;
        let is_full = free.is_some_and(|free| free < self.settings().limits.free_bytes_min);
        if is_full { Err(Error::StoreFull) } else { Ok(()) }
    }

    /// The time so long ago.
    pub(super) fn before(&self, duration: Duration) -> UnixSeconds {
        self.clock.now() - duration
    }

    /// An upload session that was last touched before then is forgotten.
    pub(super) fn idle_since(&self) -> UnixSeconds {
        self.before(self.settings().limits.upload_idle)
    }

    /// Whether the object is there with the right length, and nothing is known against it.
    pub(super) async fn is_sound(&self, blob: &Blob) -> Result<bool, Error> {
        self.is_whole(blob, self.store.length(&blob.location)).await
    }

    /// The same as it is now, for whoever goes on without an object of their own.
    async fn is_there(&self, blob: &Blob) -> Result<bool, Error> {
        let length = async { Ok(self.store.describe(&blob.location).await?.length) };
        self.is_whole(blob, length).await
    }

    async fn is_whole(
        &self,
        blob: &Blob,
        length: impl Future<Output = Result<u64, storage::Error>>,
    ) -> Result<bool, Error> {
        if blob.damaged {
            return Ok(false);
        }
        match length.await {
            Ok(length) if length == blob.size => Ok(true),
            Ok(_) | Err(storage::Error::NotFound(_)) => {
                warn_of_damage(blob);
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// What is known about the blob.
    pub(crate) async fn know(&self, digest: &Digest) -> Result<Known, Error> {
        Ok(match self.database.blob(digest).await? {
            Some(blob) if self.is_there(&blob).await? => Known::Sound(blob.size),
            Some(blob) => Known::Unsound(blob.location),
            None => Known::Nothing,
        })
    }

    /// Sees to it that the blob is not served; a read-only registry goes on without a record.
    pub(super) async fn record_damage(&self, blob: &Blob) -> Result<bool, Error> {
        if self.is_read_only() {
            return Ok(true);
        }
        Ok(self.database.record_damage(blob, self.clock.now()).await?)
    }

    /// When what is let go now may be deleted for good. At a store elsewhere a request that nobody waits
    /// for any more may yet put what it was to put.
    pub(crate) fn due(&self) -> UnixSeconds {
        let now = self.clock.now();
        if self.store.is_local() { now } else { now + LATE_SECS }
    }

    /// Whether a touch is to be written: at most once per quarter of the time that it lasts.
    pub(super) fn touch_is_due(&self, touched: UnixSeconds, lasts: Duration) -> bool {
        touched <= self.before(lasts / 4) && !self.is_read_only()
    }

    /// Records that a client was told of what `key` names: `gone` when that is not there any more. A
    /// touch that could not be written fails nobody: the touch before lasts a while yet.
    pub(super) async fn touch(&self, key: Key, gone: Error) -> Result<(), Error> {
        match self.database.touch(key, self.clock.now()).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(gone),
            // Where there is one of these there are many.
            Err(metadata::Error::Busy) => Ok(()),
            Err(error) => {
                tracing::warn!(error = chain(&error), "recording a touch");
                Ok(())
            }
        }
    }

    /// Deletes objects that the database has let go, and says of each what became of it. One that
    /// stays, or whose row does, is tried again by the next collection.
    pub(crate) async fn delete_objects(&self, dead: &[Dead]) -> Vec<Result<(), storage::Error>> {
        let results = self.remove_objects(dead).await;
        self.forget(deleted(dead, &results)).await;
        results
    }

    /// The same for whoever asked for something else, which is done already: the rows go when the
    /// writer comes to it.
    pub(super) async fn drop_objects(&self, dead: &[Dead]) {
        if dead.is_empty() {
            return;
        }
        let (backend, dead) = (self.clone(), dead.to_vec());
        let dropped = async move {
            let results = backend.remove_objects(&dead).await;
            for error in results.iter().filter_map(|result| result.as_ref().err()) {
                tracing::warn!(error = chain(error), "an object is left to the next collection");
            }
            (backend, deleted(&dead, &results))
        };
        // A store elsewhere is not waited for. Where it is slow, the next collection asks it.
        if self.store.is_local() {
            let (backend, deleted) = dropped.await;
            tokio::spawn(Asker::current().scope(async move { backend.forget(deleted).await }));
        } else if let Ok(place) = Arc::clone(&self.dropping).try_acquire_owned() {
            // The row stays: what is still on its way there is deleted with it when it is due.
            let dropped = async move {
                let _ = dropped.await;
                drop(place);
            };
            tokio::spawn(Asker::current().scope(dropped));
        }
    }

    /// Deletes objects that no row names, or whose rows are then to be forgotten. A dry run does
    /// neither: what has a row is no orphan.
    pub(super) async fn remove_objects(&self, dead: &[Dead]) -> Vec<Result<(), storage::Error>> {
        if self.deletes_nothing {
            return dead.iter().map(|_| Ok(())).collect();
        }
        self.store.delete(dead).await
    }

    async fn forget(&self, deleted: Vec<Location>) {
        if !deleted.is_empty()
            && !self.deletes_nothing
            && let Err(error) = self.database.forget_dead(deleted).await
        {
            tracing::warn!(error = chain(&error), "the next collection forgets deleted objects");
        }
    }
}

/// Those of `dead` that are deleted.
fn deleted(dead: &[Dead], results: &[Result<(), storage::Error>]) -> Vec<Location> {
    let deleted = dead.iter().zip(results).filter(|(_, result)| result.is_ok());
    deleted.map(|(dead, _)| dead.location.clone()).collect()
}

/// A line for whoever runs the registry.
pub(super) fn warn_of_damage(blob: &Blob) {
    tracing::error!(
        digest = %blob.digest, object = blob.location.as_str(), size_bytes = blob.size,
        "blob is damaged: its object is missing or too short; pushing it again repairs it"
    );
}
