//! Manifests: their exact bytes, what they name, and who refers to whom.

use std::sync::Arc;

use berth_shared::{clock::UnixSeconds, digest::Digest, name::RepositoryName};
use bytes::Bytes;
use sqlx::FromRow;

use super::{Database, Error, Transaction, cache::Key, parse, repository, signed, unsigned};

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
}

/// What a manifest cannot be used without.
#[derive(Debug, Default)]
pub(crate) struct Needs {
    pub(crate) blobs: Vec<Digest>,
    pub(crate) children: Vec<Digest>,
}

#[derive(FromRow)]
struct ManifestRow {
    media_type: String,
    bytes: Vec<u8>,
    touched: UnixSeconds,
}

impl Database {
    /// The manifest of `repository` with this digest.
    pub(crate) async fn manifest(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<Arc<Manifest>>, Error> {
        if let Some(manifest) = self.cache().manifest(repository, digest) {
            return Ok(Some(manifest));
        }
        let read_at = self.cache().generation();
        let row: Option<ManifestRow> = sqlx::query_as(
            "SELECT m.media_type, m.bytes, m.touched FROM repositories r
             JOIN manifests m ON m.repository = r.id WHERE r.name = $1 AND m.digest = $2",
        )
        .bind(repository.as_str())
        .bind(digest.as_str())
        .fetch_optional(self.readers())
        .await?;
        let Some(row) = row else { return Ok(None) };
        let manifest = Arc::new(Manifest {
            digest: digest.clone(),
            media_type: row.media_type,
            bytes: row.bytes.into(),
            touched: row.touched,
        });
        // What is served must be what was pushed: the pair of the check at the push. Whoever is told
        // that it is not here pushes it again, and that repairs it.
        if digest.algorithm().digest(&manifest.bytes) != *digest {
            tracing::error!(%repository, %digest, "manifest is damaged: push it again");
            return Ok(None);
        }
        self.cache().keep_manifest(read_at, repository, &manifest);
        Ok(Some(manifest))
    }

    /// How many bytes the manifest has, without reading them.
    pub(crate) async fn manifest_size(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<u64>, Error> {
        if let Some(manifest) = self.cache().peek_manifest(repository, digest) {
            return Ok(Some(manifest.bytes.len() as u64));
        }
        let size: Option<i64> = sqlx::query_scalar(
            "SELECT m.size FROM repositories r
             JOIN manifests m ON m.repository = r.id WHERE r.name = $1 AND m.digest = $2",
        )
        .bind(repository.as_str())
        .bind(digest.as_str())
        .fetch_optional(self.readers())
        .await?;
        size.map(unsigned).transpose()
    }

    /// What the manifest needs: its blobs, and the manifests below it.
    pub(crate) async fn needs(
        &self,
        repository: &RepositoryName,
        manifest: &Digest,
    ) -> Result<Needs, Error> {
        let rows: Vec<(String, bool)> = sqlx::query_as(
            "SELECT m.digest, m.kind = 'child' FROM repositories r
             JOIN manifest_references m ON m.repository = r.id
             WHERE r.name = $1 AND m.manifest = $2 AND m.kind <> 'subject' ORDER BY m.digest",
        )
        .bind(repository.as_str())
        .bind(manifest.as_str())
        .fetch_all(self.readers())
        .await?;
        let mut needs = Needs::default();
        for (digest, is_child) in rows {
            let list = if is_child { &mut needs.children } else { &mut needs.blobs };
            list.push(parse(&digest)?);
        }
        Ok(needs)
    }
}

impl Transaction<'_> {
    /// Stores a manifest, unless something that it requires is missing: then that is returned, and
    /// nothing is stored.
    pub(crate) async fn put_manifest(
        &mut self,
        repository: &RepositoryName,
        new: &NewManifest,
        now: UnixSeconds,
    ) -> Result<Vec<Digest>, Error> {
        let id = repository::ensure(self.connection, repository).await?;
        let mut missing = Vec::new();
        for named in new.references.iter().filter(|named| named.required) {
            if !self.holds(id, named).await? {
                missing.push(named.digest.clone());
            }
        }
        if !missing.is_empty() {
            return Ok(missing);
        }
        self.insert_manifest(id, new, now).await?;
        self.invalidate(Key::Manifest(repository.clone(), new.manifest.digest.clone()));
        Ok(missing)
    }

    async fn holds(
        &mut self,
        repository: repository::RepositoryId,
        named: &Named,
    ) -> Result<bool, Error> {
        let query = match named.kind {
            Kind::Config | Kind::Layer => {
                "SELECT EXISTS (SELECT 1 FROM repository_blobs l JOIN blobs b ON b.digest = l.digest
                 WHERE l.repository = $1 AND l.digest = $2 AND b.damaged IS NULL)"
            }
            Kind::Child | Kind::Subject => {
                "SELECT EXISTS (SELECT 1 FROM manifests WHERE repository = $1 AND digest = $2)"
            }
        };
        let holds = sqlx::query_scalar(query)
            .bind(repository)
            .bind(named.digest.as_str())
            .fetch_one(&mut *self.connection)
            .await?;
        Ok(holds)
    }

    async fn insert_manifest(
        &mut self,
        repository: repository::RepositoryId,
        new: &NewManifest,
        now: UnixSeconds,
    ) -> Result<(), Error> {
        let manifest = &new.manifest;
        sqlx::query(
            "INSERT INTO manifests
             (repository, digest, media_type, artifact_type, subject, annotations, size, pushed,
              touched, bytes)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8, $9)
             ON CONFLICT (repository, digest) DO UPDATE
             SET media_type = excluded.media_type, pushed = excluded.pushed,
             touched = excluded.touched, bytes = excluded.bytes",
        )
        .bind(repository)
        .bind(manifest.digest.as_str())
        .bind(&manifest.media_type)
        .bind(new.artifact_type.as_deref())
        .bind(new.subject.as_ref().map(Digest::as_str))
        .bind(new.annotations.as_deref())
        .bind(signed(manifest.bytes.len() as u64)?)
        .bind(now)
        .bind(&manifest.bytes[..])
        .execute(&mut *self.connection)
        .await?;
        for named in &new.references {
            sqlx::query(
                "INSERT INTO manifest_references (repository, manifest, digest, kind)
                 VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
            )
            .bind(repository)
            .bind(manifest.digest.as_str())
            .bind(named.digest.as_str())
            .bind(named.kind.word())
            .execute(&mut *self.connection)
            .await?;
        }
        self.touch_named(repository, &manifest.digest, now).await
    }

    /// Touches a manifest and what it keeps alive: its children and subjects, and theirs.
    pub(super) async fn touch_named(
        &mut self,
        repository: repository::RepositoryId,
        digest: &Digest,
        now: UnixSeconds,
    ) -> Result<(), Error> {
        sqlx::query(
            "WITH RECURSIVE named (digest) AS (
                 VALUES ($2)
                 UNION
                 SELECT r.digest FROM named n JOIN manifest_references r
                 ON r.repository = $1 AND r.manifest = n.digest AND r.kind IN ('child', 'subject')
             )
             UPDATE manifests SET touched = $3
             WHERE repository = $1 AND digest IN (SELECT digest FROM named)",
        )
        .bind(repository)
        .bind(digest.as_str())
        .bind(now)
        .execute(&mut *self.connection)
        .await?;
        Ok(())
    }

    /// Records that a client was told that the repository holds the manifest. `false` when it does
    /// not any more.
    pub(crate) async fn touch_manifest(
        &mut self,
        repository: &RepositoryName,
        digest: &Digest,
        now: UnixSeconds,
    ) -> Result<bool, Error> {
        let touched = sqlx::query(
            "UPDATE manifests SET touched = $3 WHERE digest = $2
             AND repository = (SELECT id FROM repositories WHERE name = $1)",
        )
        .bind(repository.as_str())
        .bind(digest.as_str())
        .bind(now)
        .execute(&mut *self.connection)
        .await?
        .rows_affected();
        self.invalidate(Key::Manifest(repository.clone(), digest.clone()));
        Ok(touched > 0)
    }

    /// Deletes a manifest with its tags. `false` when it is not there.
    pub(crate) async fn delete_manifest(
        &mut self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<bool, Error> {
        let Some(id) = repository::find(self.connection, repository).await? else {
            return Ok(false);
        };
        let tags: Vec<String> = sqlx::query_scalar(
            "DELETE FROM tags WHERE repository = $1 AND digest = $2 RETURNING name",
        )
        .bind(id)
        .bind(digest.as_str())
        .fetch_all(&mut *self.connection)
        .await?;
        for tag in tags {
            if let Ok(tag) = tag.parse() {
                self.invalidate(Key::Tag(repository.clone(), tag));
            }
        }
        let deleted = sqlx::query("DELETE FROM manifests WHERE repository = $1 AND digest = $2")
            .bind(id)
            .bind(digest.as_str())
            .execute(&mut *self.connection)
            .await?
            .rows_affected();
        self.invalidate(Key::Manifest(repository.clone(), digest.clone()));
        Ok(deleted > 0)
    }
}
