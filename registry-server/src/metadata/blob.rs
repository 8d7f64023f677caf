//! Blobs, and which repository links which.

use berth_shared::{
    clock::UnixSeconds,
    database::{self, Column, Record, Row, Statements, row, text},
    digest::Digest,
    name::RepositoryName,
};

use super::{
    Database, Error, Transaction, Value,
    key::Key,
    lock::Lock,
    repository::{self, RepositoryId, listed},
    upload::Upload,
};
use crate::{
    reach::Reach,
    storage::{Dead, Location},
};

/// A blob and the object that holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Blob {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    pub(crate) location: Location,
    /// Whether the object is known not to be what the digest says.
    pub(crate) damaged: bool,
}

/// A blob as a repository holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LinkedBlob {
    pub(crate) blob: Blob,
    /// When a client last put it here or was told that it is here.
    pub(crate) touched: UnixSeconds,
}

/// Where a blob may be mounted from.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) repository: RepositoryName,
    pub(crate) holds: bool,
}

impl Row for Blob {
    fn of(row: &Record) -> Result<Self, database::Error> {
        Ok(Self {
            digest: Column::at(row, "digest")?,
            size: Column::at(row, "size")?,
            location: Column::at(row, "location")?,
            damaged: Option::<UnixSeconds>::at(row, "damaged")?.is_some(),
        })
    }
}

text!(Location::as_str);
row!(LinkedBlob { touched }, blob);
row!(Source { repository, holds });

const BLOB: &str = "SELECT digest, size, location, damaged FROM blobs WHERE digest = $1";

impl Database {
    /// The blob, as far as `repository` links it. Where others write too it may be gone for a while.
    pub(crate) async fn linked_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<LinkedBlob>, Error> {
        let key = Key::Blob(repository.clone(), digest.clone());
        match self.cache().get(&key) {
            Some(Value::Blob(blob)) => Ok(Some(blob)),
            _ => self.read_linked_blob(key, repository, digest).await,
        }
    }

    /// The same as it is now, for whoever goes on as if it were here: no upload follows.
    pub(crate) async fn linked_blob_now(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<LinkedBlob>, Error> {
        if self.cache().is_ours() {
            return self.linked_blob(repository, digest).await;
        }
        let key = Key::Blob(repository.clone(), digest.clone());
        self.read_linked_blob(key, repository, digest).await
    }

    async fn read_linked_blob(
        &self,
        key: Key,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<LinkedBlob>, Error> {
        let read_at = self.cache().generation();
        let statement =
            "SELECT b.digest, b.size, b.location, b.damaged, l.touched FROM repositories r
             JOIN repository_blobs l ON l.repository = r.id
             JOIN blobs b ON b.digest = l.digest
             WHERE r.name = $1 AND l.digest = $2";
        let blob: Option<LinkedBlob> =
            self.reader().await?.optional(statement, (repository, digest)).await?;
        if let Some(blob) = &blob {
            self.cache().keep(read_at, key, Value::Blob(blob.clone()));
        }
        Ok(blob)
    }

    /// The blob, whoever links it.
    pub(crate) async fn blob(&self, digest: &Digest) -> Result<Option<Blob>, Error> {
        self.reader().await?.optional(BLOB, digest).await
    }

    /// Up to `limit` repositories that may be within `reach`, and whether each links the blob.
    /// Which they are does not depend on the blob, unless everything is within reach: then one
    /// that links it is looked for.
    pub(crate) async fn mount_sources(
        &self,
        reach: &Reach,
        digest: &Digest,
        limit: u32,
    ) -> Result<Vec<Source>, Error> {
        let mut reader = self.reader().await?;
        if reach.is_everything() {
            let statement = "SELECT r.name AS repository, TRUE AS holds
                 FROM repository_blobs l CROSS JOIN repositories r
                 WHERE l.digest = $1 AND r.id = l.repository LIMIT 1";
            return reader.all(statement, digest).await;
        }
        let statement = "SELECT c.name AS repository,
             EXISTS (SELECT 1 FROM repository_blobs l
                     WHERE l.repository = c.id AND l.digest = $1) AS holds
             FROM (SELECT r.id, r.name FROM json_each($2) s CROSS JOIN repositories r
                   WHERE r.name >= s.value ->> 0 AND r.name < s.value ->> 1 LIMIT $3) c";
        reader.all(statement, (digest, listed(reach.spans()), limit)).await
    }
}

/// What a commit makes of an upload: the blob, and where its present object lies if that is known not
/// to be sound.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) blob: Blob,
    pub(crate) unsound: Option<Location>,
    /// What else lies there for it.
    pub(crate) left: Option<Dead>,
    /// When what goes for it may be deleted.
    pub(crate) due: UnixSeconds,
}

impl Database {
    /// Ends the session and makes what it received a blob of its repository. Gives the objects that
    /// go for it, and `None` when the session has ended already, or somebody else recorded since.
    pub(crate) async fn commit_blob(
        &self,
        upload: &Upload,
        received: Received,
        now: UnixSeconds,
    ) -> Result<Option<Vec<Dead>>, Error> {
        self.write((upload.clone(), received), move |tx, (upload, received)| {
            Box::pin(async move {
                if !tx.delete_upload(upload).await? {
                    return Ok(None);
                }
                let id = repository::ensure(tx, &upload.repository).await?;
                let dead = tx.put_blob(received, now).await?;
                tx.link(id, &upload.repository, &received.blob.digest, now).await?;
                if let Some(left) = &received.left {
                    tx.bury(left, received.due).await?;
                }
                Ok(Some(dead.into_iter().chain(received.left.clone()).collect()))
            })
        })
        .await
    }

    /// Makes a blob that is here readable in `repository`. `false` when there is no such blob.
    pub(crate) async fn mount(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        now: UnixSeconds,
    ) -> Result<bool, Error> {
        let given = (repository.clone(), digest.clone());
        self.write(given, move |tx, (repository, digest)| {
            Box::pin(tx.link_blob(repository, digest, now))
        })
        .await
    }

    /// Takes the blob out of `repository`, unless a manifest there still names it.
    pub(crate) async fn unlink_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Unlinked, Error> {
        let given = (repository.clone(), digest.clone());
        self.write(given, |tx, (repository, digest)| {
            Box::pin(async move {
                let Some(id) = repository::find(tx.connection(), repository).await? else {
                    return Ok(Unlinked::NotLinked);
                };
                let link = "repository_blobs WHERE repository = $1 AND digest = $2";
                if !tx.hold(link, (id, digest), Lock::Update).await? {
                    return Ok(Unlinked::NotLinked);
                }
                let naming = "SELECT manifest FROM manifest_references
                     WHERE repository = $1 AND digest = $2 AND kind <> 'subject'
                     ORDER BY manifest LIMIT 1";
                if let Some(manifest) = tx.optional(naming, (id, digest)).await? {
                    return Ok(Unlinked::StillNamed(manifest));
                }
                let statement =
                    "DELETE FROM repository_blobs WHERE repository = $1 AND digest = $2";
                let deleted = tx.run(statement, (id, digest)).await?;
                tx.invalidate(Key::Blob(repository.clone(), digest.clone()));
                Ok(if deleted > 0 { Unlinked::Done } else { Unlinked::NotLinked })
            })
        })
        .await
    }
}

impl Transaction<'_> {
    /// Records that `blob` exists and lies where it says. When another object holds the digest and
    /// is not `unsound`, that one stays; an unsound one gives way. Gives the one that goes.
    pub(super) async fn put_blob(
        &mut self,
        Received { blob, unsound, due, .. }: &Received,
        now: UnixSeconds,
    ) -> Result<Option<Dead>, Error> {
        let Blob { digest, size, location, .. } = blob;
        let statement = "INSERT INTO blobs (digest, size, location, created, checked)
             VALUES ($1, $2, $3, $4, $4) ON CONFLICT (digest) DO NOTHING";
        if self.run(statement, (digest, size, location, now)).await? > 0 {
            return Ok(None);
        }
        let find = self.locking(BLOB, Lock::NoKeyUpdate);
        // Somebody else may have deleted it meanwhile.
        let old: Blob = self.optional(find, digest).await?.ok_or(Error::Overtaken)?;
        if old.location == *location {
            return Ok(None);
        }
        let dead = if unsound.as_ref() == Some(&old.location) {
            let statement =
                "UPDATE blobs SET size = $2, location = $3, checked = $4, damaged = NULL
                 WHERE digest = $1";
            self.run(statement, (digest, size, location, now)).await?;
            self.invalidate(Key::BlobEverywhere);
            Dead::of(old.location, old.size)
        } else {
            Dead::of(location.clone(), *size)
        };
        self.bury(&dead, *due).await?;
        Ok(Some(dead))
    }

    /// As [`Database::mount`].
    pub(super) async fn link_blob(
        &mut self,
        repository: &RepositoryName,
        digest: &Digest,
        now: UnixSeconds,
    ) -> Result<bool, Error> {
        let statement = "SELECT EXISTS (SELECT 1 FROM blobs WHERE digest = $1)";
        if !self.one::<bool>(statement, digest).await? {
            return Ok(false);
        }
        let id = repository::ensure(self, repository).await?;
        let statement = "blobs WHERE digest = $1";
        if !self.hold(statement, digest, Lock::KeyShare).await? {
            return Err(Error::Overtaken);
        }
        self.link(id, repository, digest, now).await?;
        Ok(true)
    }

    /// Links a blob that is held.
    async fn link(
        &mut self,
        id: RepositoryId,
        repository: &RepositoryName,
        digest: &Digest,
        now: UnixSeconds,
    ) -> Result<(), Error> {
        let statement = "INSERT INTO repository_blobs (repository, digest, touched)
             VALUES ($1, $2, $3)
             ON CONFLICT (repository, digest) DO UPDATE SET touched = excluded.touched";
        self.run(statement, (id, digest, now)).await?;
        self.invalidate(Key::Blob(repository.clone(), digest.clone()));
        Ok(())
    }
}

/// What became of [`Database::unlink_blob`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unlinked {
    /// It is gone from the repository.
    Done,
    /// It was not there.
    NotLinked,
    /// This manifest of the repository names it.
    StillNamed(Digest),
}
