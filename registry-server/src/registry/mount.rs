//! Cross-repository mounts (end-11): a blob that the subject may pull elsewhere is linked here.
//!
//! Whatever is missing, the right or the blob, the answer is the same: an ordinary upload. Nor does
//! the work tell which it was: it goes by what the subject may pull, not by who holds the blob.

use berth_shared::digest::Digest;

use super::{Error, backend::Backend, matching::Matching};
use crate::{authz::permit::Permit, metadata::blob::Blob, reach::Reach};

/// How many repositories are looked at for a mount that names no source: of those that the subject
/// may pull, whatever they hold. Who may pull more than so many has to name the source to be sure.
const SOURCES_MAX: u32 = 1000;

/// Mounts; clones share their turns.
#[derive(Debug, Clone)]
pub(crate) struct Mounts {
    backend: Backend,
    matching: Matching,
}

impl Mounts {
    pub(super) fn new(backend: Backend, matching: Matching) -> Self {
        Self { backend, matching }
    }

    /// Links the blob in the permit's repository, if that of `source` has it. `false` when it has to
    /// be uploaded.
    pub(crate) async fn mount(
        &self,
        permit: &Permit,
        source: &Permit,
        digest: &Digest,
    ) -> Result<bool, Error> {
        match self.backend.database.linked_blob(source.repository(), digest).await? {
            Some(linked) => self.link(permit, &linked.blob).await,
            None => Ok(false),
        }
    }

    /// The same from any repository within `reach`, which is what the subject may pull.
    pub(crate) async fn mount_from_any(
        &self,
        permit: &Permit,
        reach: &Reach,
        digest: &Digest,
    ) -> Result<bool, Error> {
        let sources = self.backend.database.mount_sources(reach, digest, SOURCES_MAX).await?;
        // Each is compared with the rights, whether or not it holds the blob.
        let pullable = self.matching.within(reach, sources, |source| &source.repository).await?;
        let Some(source) = pullable.iter().find(|source| source.holds) else { return Ok(false) };
        match self.backend.database.linked_blob(&source.repository, digest).await? {
            Some(linked) => self.link(permit, &linked.blob).await,
            None => Ok(false),
        }
    }

    /// Links the blob in the permit's repository, if its object is sound.
    pub(crate) async fn link(&self, permit: &Permit, blob: &Blob) -> Result<bool, Error> {
        if !self.backend.is_sound(blob).await? {
            return Ok(false);
        }
        Ok(self
            .backend
            .database
            .mount(permit.repository(), &blob.digest, self.backend.clock.now())
            .await?)
    }
}
