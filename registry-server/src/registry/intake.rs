//! Content that comes from another registry's store, past any upload session.

use berth_shared::{clock::UnixSeconds, digest::Digest, name::RepositoryName, tag::Tag};

pub(crate) use super::backend::Known;
use super::{Error, backend::Backend};
use crate::{metadata::import::Imported, storage};

/// Takes in what a registry's store on disk held; clones share the backend.
#[derive(Debug, Clone)]
pub(crate) struct Intake {
    backend: Backend,
}

impl Intake {
    pub(super) fn new(backend: Backend) -> Self {
        Self { backend }
    }

    /// The time.
    pub(crate) fn now(&self) -> UnixSeconds {
        self.backend.clock.now()
    }

    /// What is known about the blob.
    pub(crate) async fn know(&self, digest: &Digest) -> Result<Known, Error> {
        self.backend.know(digest).await
    }

    /// Whether the repository has the manifest.
    pub(crate) async fn has_manifest(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<bool, Error> {
        Ok(self.backend.database.manifest(repository, digest).await?.is_some())
    }

    /// Where the tag leads, and since when.
    pub(crate) async fn tag_since(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
    ) -> Result<Option<(Digest, UnixSeconds)>, Error> {
        Ok(self.backend.database.tag_since(repository, tag).await?)
    }

    /// Writes the rows. The objects that they name are durable.
    pub(crate) async fn write(&self, imported: Vec<Imported>) -> Result<(), Error> {
        let superfluous = self.backend.database.import(imported, self.now()).await?;
        let deleted = self.backend.delete_objects(&superfluous).await;
        Ok(deleted.into_iter().collect::<Result<(), storage::Error>>()?)
    }
}
