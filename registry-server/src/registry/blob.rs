//! Blobs: finding, reading, deleting.

use std::ops::Range;

use berth_shared::digest::Digest;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, future, stream, stream::BoxStream};

use super::{
    Error,
    backend::{Backend, warn_of_damage},
    hash::Hasher,
};
use crate::{
    authz::permit::Permit,
    metadata::{
        Asker, Key,
        blob::{Blob, Unlinked},
    },
    storage::{self, ObjectStream, Shares},
};

/// A blob up to this size is hashed before it is served: it takes a fraction of a millisecond.
const CHECKED_BYTES_MAX: u64 = 256 * 1024;

/// Blobs from this size on are worth a second request.
const REDIRECTED_BYTES_MIN: u64 = 256 * 1024;

/// The blobs of all repositories; clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Blobs {
    backend: Backend,
}

impl Blobs {
    pub(super) fn new(backend: Backend) -> Self {
        Self { backend }
    }

    /// The blob, if the repository links it. Its object is not looked at.
    pub(crate) async fn find(&self, permit: &Permit, digest: &Digest) -> Result<Blob, Error> {
        let linked = self.backend.database.linked_blob(permit.repository(), digest).await?;
        let blob = linked.ok_or(Error::BlobUnknown)?.blob;
        if blob.damaged { Err(Error::BlobUnknown) } else { Ok(blob) }
    }

    /// The blob, if the repository links it and its object is sound: a client uploads nothing that
    /// it was told exists. So that what it was told holds for a while, this is a touch.
    pub(crate) async fn find_sound(&self, permit: &Permit, digest: &Digest) -> Result<Blob, Error> {
        let repository = permit.repository();
        let linked = self.backend.database.linked_blob_now(repository, digest).await?;
        let linked = linked.ok_or(Error::BlobUnknown)?;
        if !self.backend.is_sound(&linked.blob).await? {
            return Err(Error::BlobUnknown);
        }
        let grace = self.backend.settings().collection.grace;
        if self.backend.touch_is_due(linked.touched, grace) {
            let key = Key::Blob(repository.clone(), digest.clone());
            self.backend.touch(key, Error::BlobUnknown).await?;
        }
        Ok(linked.blob)
    }

    /// A URL by which the client may read the blob at the store itself, where it is sent there.
    pub(crate) async fn signed_url(&self, blob: &Blob) -> Result<Option<String>, Error> {
        if blob.size < REDIRECTED_BYTES_MIN {
            return Ok(None);
        }
        let Some(url) = self.backend.store.signed_url(&blob.location).await? else {
            return Ok(None);
        };
        // The store would say of what is missing that its key is.
        if self.backend.is_sound(blob).await? { Ok(Some(url)) } else { Err(Error::BlobUnknown) }
    }

    /// Reads a part of the blob. A small blob is hashed before a byte of it is given out.
    pub(crate) async fn read(
        &self,
        shares: &Shares,
        blob: &Blob,
        part: Range<u64>,
    ) -> Result<ObjectStream, Error> {
        if blob.size <= CHECKED_BYTES_MAX {
            return Ok(slice(&self.read_small(shares, blob).await?, &part));
        }
        // The store sees by itself that a whole object is too short, but not that a part is of one.
        if part.end - part.start < blob.size && !self.backend.is_sound(blob).await? {
            return Err(Error::BlobUnknown);
        }
        match self.backend.store.read(Some(shares), &blob.location, part.clone()).await {
            Err(storage::Error::NotFound(_)) => {
                // Pushed again meanwhile it lies elsewhere, and collected it is gone.
                match self.backend.database.blob(&blob.digest).await? {
                    Some(now) if now.location != blob.location => {
                        let read = self.backend.store.read(Some(shares), &now.location, part);
                        Ok(watched(&now, read.await?))
                    }
                    Some(_) => {
                        warn_of_damage(blob);
                        Err(Error::BlobUnknown)
                    }
                    None => Err(Error::BlobUnknown),
                }
            }
            read => Ok(watched(blob, read?)),
        }
    }

    /// Reads parts of the blob, each when the one before it has come to its end. A small blob is
    /// hashed once for all of them.
    pub(crate) async fn read_parts(
        &self,
        shares: &Shares,
        blob: &Blob,
        parts: Vec<Range<u64>>,
    ) -> Result<BoxStream<'static, Result<ObjectStream, Error>>, Error> {
        if blob.size <= CHECKED_BYTES_MAX {
            let whole = self.read_small(shares, blob).await?;
            return Ok(stream::iter(parts).map(move |part| Ok(slice(&whole, &part))).boxed());
        }
        let mut parts = parts.into_iter();
        // What is missing is told before the answer has begun.
        let first = match parts.next() {
            Some(part) => Some(Ok(self.read(shares, blob, part).await?)),
            None => None,
        };
        let (blobs, blob) = (self.clone(), blob.clone());
        let shares = Shares { has_begun: true, ..shares.clone() };
        let asker = Asker::current();
        let others = stream::iter(parts).then(move |part| {
            let (blobs, shares, blob) = (blobs.clone(), shares.clone(), blob.clone());
            let asker = asker.clone();
            asker.scope(async move { blobs.read(&shares, &blob, part).await })
        });
        Ok(stream::iter(first).chain(others).boxed())
    }

    /// Reads a blob whole into memory; a damaged one is served no more.
    async fn read_small(&self, shares: &Shares, blob: &Blob) -> Result<Bytes, Error> {
        let _file = shares.files.reserve(1).await?;
        let room = shares.memory.reserve(usize::try_from(blob.size).unwrap_or(usize::MAX)).await?;
        let object = match self.backend.store.read(None, &blob.location, 0..blob.size).await {
            Err(storage::Error::NotFound(_)) => {
                // Collected or pushed again meanwhile, or really damaged.
                if self.backend.database.blob(&blob.digest).await?.is_some_and(|now| now == *blob) {
                    warn_of_damage(blob);
                }
                return Err(Error::BlobUnknown);
            }
            object => object?,
        };
        let pieces: Vec<Bytes> = object.try_collect().await?;
        let mut hasher = Hasher::new(blob.digest.algorithm());
        hasher.update(&pieces);
        if hasher.finish() != blob.digest {
            tracing::error!(digest = %blob.digest, "blob is damaged: push it again");
            self.backend.record_damage(blob).await?;
            return Err(Error::BlobUnknown);
        }
        Ok(match <[Bytes; 1]>::try_from(pieces) {
            Ok([whole]) => room.hold(whole),
            Err(pieces) => room.hold(pieces.concat()),
        })
    }

    /// Takes the blob out of the repository.
    pub(crate) async fn delete(&self, permit: &Permit, digest: &Digest) -> Result<(), Error> {
        match self.backend.database.unlink_blob(permit.repository(), digest).await? {
            Unlinked::Done => Ok(()),
            Unlinked::NotLinked => Err(Error::BlobUnknown),
            Unlinked::StillNamed(by) => Err(Error::BlobReferenced { by }),
        }
    }
}

/// The object, of which one that is found too short when its answer has begun is told of.
fn watched(blob: &Blob, object: ObjectStream) -> ObjectStream {
    let blob = blob.clone();
    let tell = move |error: &storage::Error| {
        if matches!(error, storage::Error::NotFound(_)) {
            warn_of_damage(&blob);
        }
    };
    object.inspect_err(tell).boxed()
}

/// A part of a small blob, which is hashed already.
fn slice(whole: &Bytes, part: &Range<u64>) -> ObjectStream {
    let end = usize::try_from(part.end).unwrap_or(whole.len()).min(whole.len());
    let part = whole.slice(usize::try_from(part.start).unwrap_or(end).min(end)..end);
    stream::once(future::ready(Ok(part))).boxed()
}
