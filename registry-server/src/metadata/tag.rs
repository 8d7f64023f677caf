//! Tags: names of a repository's manifests.

use berth_shared::{
    clock::UnixSeconds, database::Statements, digest::Digest, name::RepositoryName, tag::Tag,
};

use super::{
    Database, Error, Transaction, Value,
    cache::Generation,
    key::Key,
    repository::{self, RepositoryId},
};

impl Database {
    /// What the tag points to.
    pub(crate) async fn tag(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
    ) -> Result<Option<Digest>, Error> {
        let since = self.tag_since(repository, tag).await?;
        Ok(since.map(|(digest, _)| digest))
    }

    pub(super) fn cached_tag(&self, repository: &RepositoryName, tag: &Tag) -> Option<Digest> {
        match self.cache().get(&Key::Tag(repository.clone(), tag.clone()))? {
            Value::Tag(digest) => Some(digest),
            Value::Blob(_) | Value::Manifest(_) => None,
        }
    }

    pub(super) fn keep_tag(
        &self,
        read_at: Generation,
        repository: &RepositoryName,
        tag: &Tag,
        digest: &Digest,
    ) {
        let key = Key::Tag(repository.clone(), tag.clone());
        self.cache().keep(read_at, key, Value::Tag(digest.clone()));
    }

    /// What the tag points to, and since when.
    pub(crate) async fn tag_since(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
    ) -> Result<Option<(Digest, UnixSeconds)>, Error> {
        let statement = "SELECT t.digest, t.updated
             FROM repositories r JOIN tags t ON t.repository = r.id
             WHERE r.name = $1 AND t.name = $2";
        self.reader().await?.optional(statement, (repository, tag)).await
    }

    /// Up to `limit` tags of `repository` behind `last`, in byte order.
    pub(crate) async fn tags_after(
        &self,
        repository: &RepositoryName,
        last: &str,
        limit: u32,
    ) -> Result<Vec<Tag>, Error> {
        let statement = "SELECT t.name FROM repositories r JOIN tags t ON t.repository = r.id
             WHERE r.name = $1 AND t.name > $2 ORDER BY t.name LIMIT $3";
        self.reader().await?.all(statement, (repository, last, limit)).await
    }

    /// How far up to `limit` tags of `repository` behind `last` reach; `None` when there are none.
    pub(crate) async fn tags_extent(
        &self,
        repository: &RepositoryName,
        last: &str,
        limit: u32,
    ) -> Result<Option<Extent>, Error> {
        let statement = "SELECT COUNT(*), COALESCE(SUM(LENGTH(n.name)), 0), MAX(n.name)
             FROM (SELECT t.name FROM repositories r JOIN tags t ON t.repository = r.id
                   WHERE r.name = $1 AND t.name > $2 ORDER BY t.name LIMIT $3) n";
        let (count, bytes, last): (_, _, Option<_>) =
            self.reader().await?.one(statement, (repository, last, limit)).await?;
        Ok(last.map(|last| Extent { count, bytes, last }))
    }

    /// Up to `limit` tags of `repository` whose indexes name the manifest, themselves or through
    /// others; `above_max` indexes are looked at.
    pub(crate) async fn tags_above(
        &self,
        repository: &RepositoryName,
        manifest: &Digest,
        limit: u32,
        above_max: u32,
    ) -> Result<Vec<String>, Error> {
        let statement = "WITH RECURSIVE above (repository, digest) AS (
                 SELECT m.repository, m.manifest
                 FROM repositories r CROSS JOIN manifest_references m
                 WHERE r.name = $1 AND m.repository = r.id AND m.digest = $2 AND m.kind = 'child'
                 UNION
                 SELECT m.repository, m.manifest FROM above a CROSS JOIN manifest_references m
                 WHERE m.repository = a.repository AND m.digest = a.digest AND m.kind = 'child'
             )
             SELECT t.name FROM (SELECT repository, digest FROM above LIMIT $4) a
             CROSS JOIN tags t
             WHERE t.repository = a.repository AND t.digest = a.digest LIMIT $3";
        self.reader().await?.all(statement, (repository, manifest, limit, above_max)).await
    }

    /// Removes the tag and leaves its manifest, whose digest it gives. `None` when it is not there.
    pub(crate) async fn delete_tag(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
        now: UnixSeconds,
    ) -> Result<Option<Digest>, Error> {
        let given = (repository.clone(), tag.clone());
        self.write(given, move |tx, (repository, tag)| {
            Box::pin(async move {
                let Some(id) = repository::find(tx.connection(), repository).await? else {
                    return Ok(None);
                };
                tx.touch_tagged(id, tag, now).await?;
                let statement =
                    "DELETE FROM tags WHERE repository = $1 AND name = $2 RETURNING digest";
                let digest = tx.optional(statement, (id, tag)).await?;
                tx.invalidate(Key::Tag(repository.clone(), tag.clone()));
                Ok(digest)
            })
        })
        .await
    }
}

/// A run of tags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) count: u64,
    /// Of their names together.
    pub(crate) bytes: u64,
    /// The name of the last.
    pub(crate) last: String,
}

impl Transaction<'_> {
    /// Points the tag at a manifest of the repository, which is touched with what it names.
    pub(super) async fn put_tag(
        &mut self,
        repository: &RepositoryName,
        tag: &Tag,
        digest: &Digest,
        now: UnixSeconds,
    ) -> Result<(), Error> {
        let id = repository::ensure(self, repository).await?;
        self.point_tag(id, repository, tag, digest, now).await?;
        self.touch_named(id, digest, now).await
    }

    /// Points the tag at a manifest that is touched; the last write wins.
    pub(super) async fn point_tag(
        &mut self,
        id: RepositoryId,
        repository: &RepositoryName,
        tag: &Tag,
        digest: &Digest,
        now: UnixSeconds,
    ) -> Result<(), Error> {
        self.touch_tagged(id, tag, now).await?;
        let statement = "INSERT INTO tags (repository, name, digest, updated)
             VALUES ($1, $2, $3, $4)
             ON CONFLICT (repository, name) DO UPDATE
             SET digest = excluded.digest, updated = excluded.updated";
        self.run(statement, (id, tag, digest, now)).await?;
        self.invalidate(Key::Tag(repository.clone(), tag.clone()));
        Ok(())
    }
}
