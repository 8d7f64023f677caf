//! Content that comes from another registry's store, past any upload session.

use berth_shared::{clock::UnixSeconds, digest::Digest, name::RepositoryName, tag::Tag};

use super::{Error, Registry};
use crate::{
    metadata::import::Imported,
    storage::{self, Location},
};

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

impl Registry {
    /// The time.
    pub(crate) fn now(&self) -> UnixSeconds {
        self.clock.now()
    }

    /// What is known about the blob.
    pub(crate) async fn know(&self, digest: &Digest) -> Result<Known, Error> {
        Ok(match self.database.blob(digest).await? {
            Some(blob) if self.is_sound(&blob).await? => Known::Sound(blob.size),
            Some(blob) => Known::Unsound(blob.location),
            None => Known::Nothing,
        })
    }

    /// Whether the repository has the manifest.
    pub(crate) async fn has_manifest(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<bool, Error> {
        Ok(self.database.manifest(repository, digest).await?.is_some())
    }

    /// Where the tag leads, and since when.
    pub(crate) async fn tag_since(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
    ) -> Result<Option<(Digest, UnixSeconds)>, Error> {
        Ok(self.database.tag_since(repository, tag).await?)
    }

    /// Writes the rows. The objects that they name are durable.
    pub(crate) async fn take_in(&self, imported: Vec<Imported>) -> Result<(), Error> {
        let superfluous = self.database.import(imported, self.now()).await?;
        let deleted = self.delete_objects(&superfluous).await;
        Ok(deleted.into_iter().collect::<Result<(), storage::Error>>()?)
    }
}
