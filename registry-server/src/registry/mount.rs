//! Cross-repository mounts (end-11): a blob that the subject may pull elsewhere is linked here.
//!
//! Whatever is missing, the right or the blob, the answer is the same: an ordinary upload. Nor does
//! the work tell which it was: it goes by what the subject may pull, not by who holds the blob.

use berth_shared::{digest::Digest, name::RepositoryName};

use super::{Error, Registry};
use crate::{
    authz::{Permit, Puller},
    metadata::blob::Blob,
};

/// How many repositories are looked at for a mount that names no source: of those that the subject
/// may pull, whatever they hold. Who may pull more than so many has to name the source to be sure.
const SOURCES_MAX: u32 = 1000;

impl Registry {
    /// Links the blob in the permit's repository if the subject may pull it from `from`, or, when
    /// that is absent, from any repository. `false` when it has to be uploaded.
    pub(crate) async fn mount_blob(
        &self,
        permit: &Permit,
        puller: &Puller<'_>,
        digest: &Digest,
        from: Option<&RepositoryName>,
    ) -> Result<bool, Error> {
        let source = match from {
            Some(from) => self.pullable_source(puller, digest, from).await?,
            None => self.any_pullable_source(puller, digest).await?,
        };
        match source {
            Some(blob) => self.link_blob(permit, &blob).await,
            None => Ok(false),
        }
    }

    /// Links the blob in the permit's repository, if its object is sound.
    pub(crate) async fn link_blob(&self, permit: &Permit, blob: &Blob) -> Result<bool, Error> {
        if !self.is_sound(blob).await? {
            return Ok(false);
        }
        let (repository, digest, now) =
            (permit.repository().clone(), blob.digest.clone(), self.clock.now());
        self.database
            .write(move |tx| {
                Box::pin(async move {
                    tx.link_blob(&repository, &digest, now).await.map_err(Error::from)
                })
            })
            .await
    }

    async fn pullable_source(
        &self,
        puller: &Puller<'_>,
        digest: &Digest,
        from: &RepositoryName,
    ) -> Result<Option<Blob>, Error> {
        if puller.may(from).await {
            Ok(self.database.linked_blob(from, digest).await?.map(|linked| linked.blob))
        } else {
            Ok(None)
        }
    }

    async fn any_pullable_source(
        &self,
        puller: &Puller<'_>,
        digest: &Digest,
    ) -> Result<Option<Blob>, Error> {
        let reach = puller.reach().await;
        let sources = self.database.mount_sources(&reach, digest, SOURCES_MAX).await?;
        // Each is compared with the rights, whether or not it holds the blob.
        let pullable = self.matching.within(&reach, sources, |source| &source.repository).await?;
        match pullable.iter().find(|source| source.holds) {
            Some(source) => {
                let linked = self.database.linked_blob(&source.repository, digest).await?;
                Ok(linked.map(|linked| linked.blob))
            }
            None => Ok(None),
        }
    }
}
