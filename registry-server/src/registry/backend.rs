//! What every part of the registry stands on: the database, the store, the time, and the settings in
//! force.

use std::{fmt, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use berth_shared::{
    clock::{Clock, UnixSeconds},
    telemetry::chain,
};

use super::{Error, Settings};
use crate::{
    metadata::{self, Asker, Database, blob::Blob},
    storage::{self, Dead, Location, Store},
};

/// The backend of one registry; clones share it.
#[derive(Clone)]
pub(super) struct Backend {
    pub(super) database: Database,
    pub(super) store: Arc<dyn Store>,
    pub(super) clock: Clock,
    settings: Arc<ArcSwap<Settings>>,
}

impl Backend {
    pub(super) fn new(
        database: Database,
        store: Arc<dyn Store>,
        clock: Clock,
        settings: Settings,
    ) -> Self {
        database.limit_writes(settings.limits.write_time);
        Self { database, store, clock, settings: Arc::new(ArcSwap::from_pointee(settings)) }
    }

    /// What holds at the moment.
    pub(super) fn settings(&self) -> Settings {
        **self.settings.load()
    }

    /// Puts other settings in force.
    pub(super) fn change_settings(&self, settings: Settings) {
        self.database.limit_writes(settings.limits.write_time);
        self.settings.store(Arc::new(settings));
    }

    /// Whether nothing may be changed.
    pub(super) fn is_read_only(&self) -> bool {
        self.settings.load().read_only
    }

    /// Lets nothing be changed, or lets it again.
    pub(super) fn set_read_only(&self, read_only: bool) {
        self.settings.rcu(|settings| Settings { read_only, ..**settings });
    }

    /// Whoever makes the registry read-only counts on it that nothing changes from then on.
    pub(super) fn refuse_when_read_only(&self) -> Result<(), Error> {
        if self.is_read_only() { Err(Error::ReadOnly) } else { Ok(()) }
    }

    pub(super) async fn refuse_when_full(&self) -> Result<(), Error> {
        let free = self.store.free_bytes().await?;
        let is_full = free.is_some_and(|free| free < self.settings().limits.free_bytes_min);
        if is_full { Err(Error::StoreFull) } else { Ok(()) }
    }

    /// Whether database and store answer.
    pub(super) async fn check(&self) -> Result<(), Error> {
        self.database.check().await?;
        self.store.check().await?;
        Ok(())
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
        if blob.damaged {
            return Ok(false);
        }
        match self.store.length(&blob.location).await {
            Ok(length) if length == blob.size => Ok(true),
            Ok(_) | Err(storage::Error::NotFound(_)) => {
                warn_of_damage(blob);
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Sees to it that the blob is not served; a read-only registry goes on without a record.
    pub(super) async fn record_damage(&self, blob: &Blob) -> Result<bool, Error> {
        if self.is_read_only() {
            return Ok(true);
        }
        Ok(self.database.record_damage(blob, self.clock.now()).await?)
    }

    /// Whether a touch is to be written: at most once per quarter of the time that it lasts.
    pub(super) fn touch_is_due(&self, touched: UnixSeconds, lasts: Duration) -> bool {
        touched <= self.before(lasts / 4) && !self.is_read_only()
    }

    /// Deletes objects that the database has let go, and says of each what became of it. One that
    /// stays, or whose row does, is tried again by the next collection.
    pub(super) async fn delete(&self, dead: &[Dead]) -> Vec<Result<(), storage::Error>> {
        let results = self.store.delete(dead).await;
        self.forget(deleted(dead, &results)).await;
        results
    }

    /// The same for whoever asked for something else, which is done already: the rows go when the
    /// writer comes to it.
    pub(super) async fn drop_objects(&self, dead: &[Dead]) {
        let results = self.store.delete(dead).await;
        for error in results.iter().filter_map(|result| result.as_ref().err()) {
            tracing::warn!(error = chain(error), "an object is left to the next collection");
        }
        let (backend, deleted) = (self.clone(), deleted(dead, &results));
        tokio::spawn(Asker::current().scope(async move { backend.forget(deleted).await }));
    }

    async fn forget(&self, deleted: Vec<Location>) {
        if !deleted.is_empty()
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

/// What a touch says: `gone` when what it was for is not there any more. One that could not be
/// written fails nobody: the touch before lasts a while yet.
pub(super) fn touched(touch: Result<bool, metadata::Error>, gone: Error) -> Result<(), Error> {
    match touch {
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

/// A line for whoever runs the registry.
pub(super) fn warn_of_damage(blob: &Blob) {
    tracing::error!(
        digest = %blob.digest, object = blob.location.as_str(), size_bytes = blob.size,
        "blob is damaged: its object is missing or too short; pushing it again repairs it"
    );
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backend").field("store", &self.store).finish_non_exhaustive()
    }
}
