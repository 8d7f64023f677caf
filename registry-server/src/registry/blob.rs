//! Blobs: finding, reading, deleting.

use berth_shared::digest::Digest;

use super::{Error, Registry};
use crate::{
    authz::Permit,
    metadata::blob::{Blob, Unlinked},
    storage::{self, ObjectStream},
};

impl Registry {
    /// The blob, if the repository links it. Its object is not looked at.
    pub(crate) async fn blob(&self, permit: &Permit, digest: &Digest) -> Result<Blob, Error> {
        self.database.linked_blob(permit.repository(), digest).await?.ok_or(Error::BlobUnknown)
    }

    /// The blob, if the repository links it and its object is sound: a client uploads nothing that
    /// it was told exists.
    pub(crate) async fn sound_blob(&self, permit: &Permit, digest: &Digest) -> Result<Blob, Error> {
        let blob = self.blob(permit, digest).await?;
        if self.is_sound(&blob).await? { Ok(blob) } else { Err(Error::BlobUnknown) }
    }

    /// Reads `length` bytes of the blob from `start`.
    pub(crate) async fn read_blob(
        &self,
        blob: &Blob,
        start: u64,
        length: u64,
    ) -> Result<ObjectStream, Error> {
        // The store sees by itself that a whole object is too short, but not that a part is of one.
        if length < blob.size && !self.is_sound(blob).await? {
            return Err(Error::BlobUnknown);
        }
        self.store.read(&blob.location, start, length).await.map_err(|error| match error {
            storage::Error::NotFound(location) => {
                damaged(blob, &location);
                Error::BlobUnknown
            }
            error => error.into(),
        })
    }

    /// Takes the blob out of the repository.
    pub(crate) async fn delete_blob(&self, permit: &Permit, digest: &Digest) -> Result<(), Error> {
        let (repository, digest) = (permit.repository().clone(), digest.clone());
        let unlinked = self
            .database
            .write(move |tx| {
                Box::pin(
                    async move { tx.unlink_blob(&repository, &digest).await.map_err(Error::from) },
                )
            })
            .await?;
        match unlinked {
            Unlinked::Done => Ok(()),
            Unlinked::NotLinked => Err(Error::BlobUnknown),
            Unlinked::StillNamed(by) => Err(Error::BlobReferenced { by }),
        }
    }

    /// Whether the object is there with the right length.
    pub(crate) async fn is_sound(&self, blob: &Blob) -> Result<bool, Error> {
        match self.store.length(&blob.location).await {
            Ok(length) if length == blob.size => Ok(true),
            Ok(_) | Err(storage::Error::NotFound(_)) => {
                damaged(blob, &blob.location);
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }
}

fn damaged(blob: &Blob, location: &storage::Location) {
    tracing::error!(
        digest = %blob.digest, object = location.as_str(), size_bytes = blob.size,
        "blob is damaged: its object is missing or too short; pushing it again repairs it"
    );
}
