//! Manifests: their exact bytes, what they name, and who refers to whom.

use std::{collections::HashSet, sync::Arc};

use berth_shared::{
    clock::UnixSeconds, database::Statements, digest::Digest, name::RepositoryName,
    reference::Reference, tag::Tag,
};
use bytes::Bytes;
use sqlx::AssertSqlSafe;

use super::{
    Database, Error, Transaction, Value,
    key::Key,
    list::List,
    lock::Lock,
    repository::{self, RepositoryId},
};

/// A manifest as it was pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) digest: Digest,
    pub(crate) media_type: String,
    pub(crate) bytes: Bytes,
    /// When it was pushed, lost a tag, or a client was told that it is here.
    pub(crate) touched: UnixSeconds,
}

/// A manifest about to be stored, and what its content says.
#[derive(Debug, Clone)]
pub(crate) struct NewManifest {
    pub(crate) manifest: Manifest,
    pub(crate) artifact_type: Option<String>,
    pub(crate) subject: Option<Digest>,
    /// As a JSON object.
    pub(crate) annotations: Option<String>,
    pub(crate) references: Vec<Named>,
}

/// Something that a manifest names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) digest: Digest,
    pub(crate) kind: Kind,
    /// Its length in bytes, as the manifest says, if it does.
    pub(crate) size: Option<u64>,
    /// Whether it must be in the repository before the manifest may be.
    pub(crate) required: bool,
}

/// As what a manifest names something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Config,
    Layer,
    Child,
    Subject,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Layer => "layer",
            Self::Child => "child",
            Self::Subject => "subject",
        }
    }

    fn is_blob(self) -> bool {
        matches!(self, Self::Config | Self::Layer)
    }
}

/// What came of asking for a manifest.
#[derive(Debug)]
pub(crate) enum Answer {
    Manifest(Arc<Manifest>),
    /// It has so many bytes, which is more than there is room for.
    TooLarge(u64),
}

/// A size that no manifest exceeds.
const ANY_SIZE: u64 = i64::MAX.unsigned_abs();

/// What a manifest cannot be used without.
#[derive(Debug, Default)]
pub(crate) struct Needs {
    pub(crate) blobs: Vec<Digest>,
    pub(crate) children: Vec<Digest>,
}

impl Database {
    /// The manifest of `repository` with this digest, however large it is.
    pub(crate) async fn manifest(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<Arc<Manifest>>, Error> {
        if let Some(manifest) = self.cached_manifest(repository, digest) {
            return Ok(Some(manifest));
        }
        let reference = Reference::Digest(digest.clone());
        match self.stored_manifest(repository, &reference, ANY_SIZE).await? {
            Some(Answer::Manifest(manifest)) => Ok(Some(manifest)),
            Some(Answer::TooLarge(_)) | None => Ok(None),
        }
    }

    /// What the reference names, if all of it is in memory.
    pub(crate) fn manifest_in_memory(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Option<Arc<Manifest>> {
        match reference {
            Reference::Digest(digest) => self.cached_manifest(repository, digest),
            Reference::Tag(tag) => {
                let digest = self.cached_tag(repository, tag)?;
                self.cached_manifest(repository, &digest)
            }
        }
    }

    fn cached_manifest(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Option<Arc<Manifest>> {
        match self.cache().get(&Key::Manifest(repository.clone(), digest.clone()))? {
            Value::Manifest(manifest) => Some(manifest),
            Value::Blob(_) | Value::Tag(_) => None,
        }
    }

    /// What the reference names, as the database has it, if it has at most `bytes_max` bytes. How
    /// many it has, the head of its row says.
    pub(crate) async fn stored_manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
        bytes_max: u64,
    ) -> Result<Option<Answer>, Error> {
        let read_at = self.cache().generation();
        let (tag, digest) = match reference {
            Reference::Digest(_) => ("", "m.digest = $2"),
            Reference::Tag(_) => (
                " CROSS JOIN tags g",
                "g.repository = r.id AND g.name = $2 AND m.digest = g.digest",
            ),
        };
        let statement = AssertSqlSafe(format!(
            "SELECT m.digest, CAST(OCTET_LENGTH(m.bytes) AS BIGINT), m.media_type,
             CASE WHEN OCTET_LENGTH(m.bytes) <= CAST($3 AS BIGINT) THEN m.bytes END, t.touched
             FROM repositories r{tag} CROSS JOIN manifests m CROSS JOIN manifest_touches t
             WHERE r.name = $1 AND m.repository = r.id AND {digest}
             AND t.repository = m.repository AND t.digest = m.digest"
        ));
        let values = (repository, reference.as_str(), bytes_max);
        let row: Option<(Digest, u64, _, Option<Vec<u8>>, _)> =
            self.reader().await?.optional(statement, values).await?;
        let Some((digest, size, media_type, bytes, touched)) = row else { return Ok(None) };
        if let Reference::Tag(tag) = reference {
            self.keep_tag(read_at, repository, tag, &digest);
        }
        let Some(bytes) = bytes else { return Ok(Some(Answer::TooLarge(size))) };
        let manifest = Manifest { digest, media_type, bytes: Bytes::from(bytes), touched };
        // What is served must be what was pushed: the pair of the check at the push. Whoever is told
        // that it is not here pushes it again, and that repairs it.
        if manifest.digest.algorithm().digest(&manifest.bytes) != manifest.digest {
            tracing::error!(%repository, digest = %manifest.digest, "manifest is damaged: push it again");
            return Ok(None);
        }
        let (key, manifest) =
            (Key::Manifest(repository.clone(), manifest.digest.clone()), Arc::new(manifest));
        self.cache().keep(read_at, key, Value::Manifest(Arc::clone(&manifest)));
        Ok(Some(Answer::Manifest(manifest)))
    }

    /// What the manifest needs: its blobs, and the manifests below it.
    pub(crate) async fn needs(
        &self,
        repository: &RepositoryName,
        manifest: &Digest,
    ) -> Result<Needs, Error> {
        let statement = "SELECT m.digest, m.kind = 'child' FROM repositories r
             JOIN manifest_references m ON m.repository = r.id
             WHERE r.name = $1 AND m.manifest = $2 AND m.kind <> 'subject' ORDER BY m.digest";
        let mut needs = Needs::default();
        let named = self.reader().await?.all(statement, (repository, manifest)).await?;
        for (digest, is_child) in named {
            if is_child { needs.children.push(digest) } else { needs.blobs.push(digest) }
        }
        Ok(needs)
    }
}

impl Database {
    /// Stores a manifest, and points all of `tags` at it; the last write wins.
    ///
    /// # Errors
    /// When something that it requires is missing: then nothing is stored.
    pub(crate) async fn put_manifest(
        &self,
        repository: &RepositoryName,
        new: NewManifest,
        tags: Vec<Tag>,
        now: UnixSeconds,
    ) -> Result<(), Error> {
        let given = (repository.clone(), new, tags);
        self.write(given, move |tx, (repository, new, tags)| {
            Box::pin(async move {
                let id = tx.put_manifest(repository, new, now).await?;
                for tag in tags {
                    tx.point_tag(id, repository, tag, &new.manifest.digest, now).await?;
                }
                Ok(())
            })
        })
        .await
    }
}

impl Transaction<'_> {
    /// As [`Database::put_manifest`], without tags.
    pub(super) async fn put_manifest(
        &mut self,
        repository: &RepositoryName,
        new: &NewManifest,
        now: UnixSeconds,
    ) -> Result<RepositoryId, Error> {
        let id = repository::ensure(self, repository).await?;
        let missing = self.missing(id, &new.references).await?;
        if !missing.is_empty() {
            return Err(Error::Missing(missing));
        }
        self.insert_manifest(id, new, now).await?;
        self.invalidate(Key::Manifest(repository.clone(), new.manifest.digest.clone()));
        Ok(id)
    }

    /// What is required of `references` and not there.
    async fn missing(
        &mut self,
        repository: RepositoryId,
        references: &[Named],
    ) -> Result<Vec<Digest>, Error> {
        let blobs = "SELECT w.value ->> 0 FROM json_each($2) w WHERE NOT EXISTS (
             SELECT 1 FROM repository_blobs l CROSS JOIN blobs b
             WHERE l.repository = $1 AND l.digest = w.value ->> 0
             AND b.digest = l.digest AND b.damaged IS NULL)";
        let manifests = "SELECT w.value ->> 0 FROM json_each($2) w WHERE NOT EXISTS (
             SELECT 1 FROM manifests m WHERE m.repository = $1 AND m.digest = w.value ->> 0)";
        let held_manifests = "manifests WHERE repository = $1
             AND digest IN (SELECT value ->> 0 FROM json_each($2)) ORDER BY digest";
        let held_blobs = "repository_blobs WHERE repository = $1
             AND digest IN (SELECT value ->> 0 FROM json_each($2)) ORDER BY digest";
        let mut missing: Vec<Digest> = Vec::new();
        for (are_blobs, statement, held, lock) in [
            (false, manifests, held_manifests, Lock::NoKeyUpdate),
            (true, blobs, held_blobs, Lock::KeyShare),
        ] {
            let is_one = |it: &&Named| it.required && it.kind.is_blob() == are_blobs;
            let required = references.iter().filter(is_one).map(|it| [it.digest.as_str()]);
            let required: Vec<_> = required.collect();
            if !required.is_empty() {
                let values = (repository, List::of(required));
                let held = self.held("digest", held, &values, lock).await?;
                let mut found: Vec<Digest> = self.all(statement, values).await?;
                // What came in between is there, and may go again.
                if let Some(held) = held {
                    let held: HashSet<String> = held.into_iter().collect();
                    let wanted = references.iter().filter(is_one).map(|it| &it.digest);
                    let free = wanted.filter(|it| !held.contains(it.as_str()));
                    let free: Vec<_> = free.filter(|it| !found.contains(it)).cloned().collect();
                    found.extend(free);
                }
                // Blobs are told first, and held last.
                found.append(&mut missing);
                missing = found;
            }
        }
        Ok(missing)
    }

    async fn insert_manifest(
        &mut self,
        repository: RepositoryId,
        new: &NewManifest,
        now: UnixSeconds,
    ) -> Result<(), Error> {
        let NewManifest { manifest, artifact_type, subject, annotations, references } = new;
        let Manifest { digest, media_type, bytes, .. } = manifest;
        let statement = "INSERT INTO manifests
             (repository, digest, media_type, artifact_type, subject, annotations, size, pushed,
              bytes)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
             ON CONFLICT (repository, digest) DO UPDATE
             SET media_type = excluded.media_type, pushed = excluded.pushed,
             bytes = excluded.bytes";
        let (size, bytes) = (bytes.len() as u64, &bytes[..]);
        let row =
            (repository, digest, media_type, artifact_type, subject, annotations, size, now, bytes);
        self.run(statement, row).await?;
        let statement = "INSERT INTO manifest_touches (repository, digest, touched)
             VALUES ($1, $2, $3)
             ON CONFLICT (repository, digest) DO UPDATE SET touched = excluded.touched";
        self.run(statement, (repository, digest, now)).await?;
        let statement = "INSERT INTO manifest_references (repository, manifest, digest, kind)
             SELECT $1, $2, value ->> 0, value ->> 1 FROM json_each($3) WHERE TRUE
             ON CONFLICT DO NOTHING";
        let references = references.iter().map(|it| [it.digest.as_str(), it.kind.word()]);
        self.run(statement, (repository, digest, List::of(references))).await?;
        self.touch_named(repository, digest, now).await
    }
}
