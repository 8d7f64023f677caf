//! Manifests: reading, pushing, deleting. What one says is read in `manifest_content`.

use std::sync::Arc;

use berth_shared::{
    digest::{Algorithm, Digest},
    name::RepositoryName,
    reference::Reference,
    serve::budget::{Reservation, Share},
    tag::Tag,
};
use bytes::Bytes;

use super::{
    Error, backend::Backend, content::MANIFEST_COPIES, delete::Deletion,
    manifest_content::read_manifest,
};
use crate::{
    authz::permit::Permit,
    metadata::{
        Key,
        manifest::{Answer, Manifest},
    },
};

/// The room that a manifest is tried with: most have no more.
const MANIFEST_BYTES: usize = 16 * 1024;

/// What became of a pushed manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pushed {
    pub(crate) digest: Digest,
    pub(crate) subject: Option<Digest>,
}

/// A manifest that was asked for.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) manifest: Arc<Manifest>,
    /// What its bytes take, unless they are those that the cache holds.
    room: Option<Reservation>,
}

impl Found {
    /// The bytes, on the account of who they are sent to.
    pub(crate) async fn bytes(self, memory: &Share) -> Result<Bytes, Error> {
        let bytes = self.manifest.bytes.clone();
        let room = match self.room {
            Some(room) => room,
            None => memory.reserve(bytes.len()).await?,
        };
        Ok(room.hold(bytes))
    }
}

/// As of when a manifest is asked for. Where other servers delete too, what was read a moment ago may be gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AsOf {
    /// Now: who is told that it is here goes on as if it were.
    Now,
    /// A moment ago, for who reads it.
    Lately,
}

/// The manifests of all repositories; clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Manifests {
    backend: Backend,
    deletion: Deletion,
}

impl Manifests {
    pub(super) fn new(backend: Backend, deletion: Deletion) -> Self {
        Self { backend, deletion }
    }

    /// The manifest that the reference names.
    pub(crate) async fn find(
        &self,
        permit: &Permit,
        reference: &Reference,
        as_of: AsOf,
        memory: &Share,
    ) -> Result<Found, Error> {
        let repository = permit.repository();
        let may_be_kept = as_of == AsOf::Lately || !self.backend.is_shared();
        let kept = self.backend.database.manifest_in_memory(repository, reference);
        let found = match kept.filter(|_| may_be_kept) {
            Some(manifest) => Found { manifest, room: None },
            None => self.read_stored(repository, reference, memory).await?,
        };
        // Whoever was told that it is here goes on to name it in an index.
        if let Reference::Digest(digest) = reference
            && let Some(lasts) = self.backend.settings().collection.untagged_after
            && self.backend.touch_is_due(found.manifest.touched, lasts)
        {
            let key = Key::Manifest(repository.clone(), digest.clone());
            self.backend.touch(key, Error::ManifestUnknown).await?;
        }
        Ok(found)
    }

    async fn read_stored(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
        memory: &Share,
    ) -> Result<Found, Error> {
        let mut bytes_max = MANIFEST_BYTES;
        loop {
            let mut room = memory.reserve(bytes_max.saturating_mul(MANIFEST_COPIES)).await?;
            let answer = self
                .backend
                .database
                .stored_manifest(repository, reference, bytes_max as u64)
                .await?;
            match answer.ok_or(Error::ManifestUnknown)? {
                Answer::Manifest(manifest) => {
                    room.shrink(manifest.bytes.len());
                    return Ok(Found { manifest, room: Some(room) });
                }
                // By the next look a tag may lead to a larger one.
                Answer::TooLarge(bytes) => {
                    bytes_max = usize::try_from(bytes).unwrap_or(usize::MAX);
                }
            }
        }
    }

    /// Stores a manifest under its digest, and points the reference, if it is a tag, and all of
    /// `tags` at it.
    pub(crate) async fn put(
        &self,
        permit: &Permit,
        reference: &Reference,
        tags: Vec<Tag>,
        media_type: Option<&str>,
        bytes: Bytes,
    ) -> Result<Pushed, Error> {
        self.backend.refuse_when_full().await?;
        let now = self.backend.clock.now();
        let (algorithm, claimed) = match reference {
            Reference::Digest(digest) => (digest.algorithm(), Some(digest)),
            Reference::Tag(_) => (Algorithm::Sha256, None),
        };
        let digest = algorithm.digest(&bytes);
        if claimed.is_some_and(|claimed| *claimed != digest) {
            return Err(Error::DigestMismatch);
        }
        let sparse_manifests = self.backend.settings().limits.sparse_manifests;
        let new = read_manifest(digest, media_type, bytes, sparse_manifests, now)?;
        let pushed = Pushed { digest: new.manifest.digest.clone(), subject: new.subject.clone() };
        let tagged = match reference {
            Reference::Tag(tag) => vec![tag.clone()],
            Reference::Digest(_) => tags,
        };
        self.backend.refuse_when_read_only()?;
        self.backend.database.put_manifest(permit.repository(), new, tagged, now).await?;
        Ok(pushed)
    }

    /// Deletes a manifest with its tags, or a tag alone.
    pub(crate) async fn delete(&self, permit: &Permit, reference: &Reference) -> Result<(), Error> {
        match reference {
            Reference::Tag(tag) => {
                let (repository, now) = (permit.repository(), self.backend.clock.now());
                let digest = self.backend.database.delete_tag(repository, tag, now).await?;
                digest.map(drop).ok_or(Error::ManifestUnknown)
            }
            Reference::Digest(digest) => {
                self.deletion.delete_for_client(permit.repository(), digest).await
            }
        }
    }
}
