//! The objects behind blobs: whether they are sound, and how they go.

use std::time::Duration;

use berth_shared::{clock::UnixSeconds, telemetry::chain};

use super::{Error, Registry};
use crate::{
    metadata::{self, Asker, Key, blob::Blob},
    storage::{self, Dead, Location},
};

impl Registry {
    pub(super) async fn refuse_when_full(&self) -> Result<(), Error> {
        let free = self.store.free_bytes().await?;
        let is_full = free.is_some_and(|free| free < self.settings().limits.free_bytes_min);
        if is_full { Err(Error::StoreFull) } else { Ok(()) }
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
    pub(super) async fn delete_objects(&self, dead: &[Dead]) -> Vec<Result<(), storage::Error>> {
        let results = self.remove_objects(dead).await;
        self.forget(deleted(dead, &results)).await;
        results
    }

    /// The same for whoever asked for something else, which is done already: the rows go when the
    /// writer comes to it.
    pub(super) async fn drop_objects(&self, dead: &[Dead]) {
        let results = self.remove_objects(dead).await;
        for error in results.iter().filter_map(|result| result.as_ref().err()) {
            tracing::warn!(error = chain(error), "an object is left to the next collection");
        }
        let (registry, deleted) = (self.clone(), deleted(dead, &results));
        tokio::spawn(Asker::current().scope(async move { registry.forget(deleted).await }));
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
