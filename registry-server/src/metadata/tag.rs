//! Tags: names of a repository's manifests.

use berth_shared::{clock::UnixSeconds, digest::Digest, name::RepositoryName, tag::Tag};

use super::{
    Database, Error, Transaction,
    column::{parse, unsigned},
    key::Key,
    repository,
};

impl Database {
    /// What the tag points to.
    pub(crate) async fn tag(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
    ) -> Result<Option<Digest>, Error> {
        if let Some(digest) = self.cache().tag(repository, tag) {
            return Ok(Some(digest));
        }
        let read_at = self.cache().generation();
        let digest: Option<String> = sqlx::query_scalar(
            "SELECT t.digest FROM repositories r JOIN tags t ON t.repository = r.id
             WHERE r.name = $1 AND t.name = $2",
        )
        .bind(repository.as_str())
        .bind(tag.as_str())
        .fetch_optional(&mut *self.reader().await?)
        .await?;
        let digest: Option<Digest> = digest.as_deref().map(parse).transpose()?;
        if let Some(digest) = &digest {
            self.cache().keep_tag(read_at, repository, tag, digest);
        }
        Ok(digest)
    }

    /// What the tag points to, and since when.
    pub(crate) async fn tag_since(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
    ) -> Result<Option<(Digest, UnixSeconds)>, Error> {
        let row: Option<(String, UnixSeconds)> = sqlx::query_as(
            "SELECT t.digest, t.updated FROM repositories r JOIN tags t ON t.repository = r.id
             WHERE r.name = $1 AND t.name = $2",
        )
        .bind(repository.as_str())
        .bind(tag.as_str())
        .fetch_optional(&mut *self.reader().await?)
        .await?;
        row.map(|(digest, updated)| Ok((parse(&digest)?, updated))).transpose()
    }

    /// Up to `limit` tags of `repository` behind `last`, in byte order.
    pub(crate) async fn tags_after(
        &self,
        repository: &RepositoryName,
        last: &str,
        limit: u32,
    ) -> Result<Vec<Tag>, Error> {
        let names: Vec<String> = sqlx::query_scalar(
            "SELECT t.name FROM repositories r JOIN tags t ON t.repository = r.id
             WHERE r.name = $1 AND t.name > $2 ORDER BY t.name LIMIT $3",
        )
        .bind(repository.as_str())
        .bind(last)
        .bind(i64::from(limit))
        .fetch_all(&mut *self.reader().await?)
        .await?;
        names.iter().map(|name| parse(name)).collect()
    }

    /// How far up to `limit` tags of `repository` behind `last` reach; `None` when there are none.
    pub(crate) async fn tags_extent(
        &self,
        repository: &RepositoryName,
        last: &str,
        limit: u32,
    ) -> Result<Option<Extent>, Error> {
        let (count, bytes, last): (i64, i64, Option<String>) = sqlx::query_as(
            "SELECT COUNT(*), COALESCE(SUM(LENGTH(n.name)), 0), MAX(n.name)
             FROM (SELECT t.name FROM repositories r JOIN tags t ON t.repository = r.id
                   WHERE r.name = $1 AND t.name > $2 ORDER BY t.name LIMIT $3) n",
        )
        .bind(repository.as_str())
        .bind(last)
        .bind(i64::from(limit))
        .fetch_one(&mut *self.reader().await?)
        .await?;
        let (count, bytes) = (unsigned(count)?, unsigned(bytes)?);
        Ok(last.map(|last| Extent { count, bytes, last }))
    }
}

impl Database {
    /// Removes the tag and leaves its manifest, whose digest it gives. `None` when it is not there.
    pub(crate) async fn delete_tag(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
        now: UnixSeconds,
    ) -> Result<Option<Digest>, Error> {
        let given = (repository.clone(), tag.clone());
        self.write(given, move |tx, (repository, tag)| {
            Box::pin(tx.delete_tag(repository, tag, now))
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
    /// Points the tag at a manifest of the repository; the last write wins.
    pub(super) async fn put_tag(
        &mut self,
        repository: &RepositoryName,
        tag: &Tag,
        digest: &Digest,
        now: UnixSeconds,
    ) -> Result<(), Error> {
        let id = repository::ensure(self.connection, repository).await?;
        self.touch_tagged(id, tag, now).await?;
        sqlx::query(
            "INSERT INTO tags (repository, name, digest, updated) VALUES ($1, $2, $3, $4)
             ON CONFLICT (repository, name) DO UPDATE
             SET digest = excluded.digest, updated = excluded.updated",
        )
        .bind(id)
        .bind(tag.as_str())
        .bind(digest.as_str())
        .bind(now)
        .execute(&mut *self.connection)
        .await?;
        self.touch_named(id, digest, now).await?;
        self.invalidate(Key::Tag(repository.clone(), tag.clone()));
        Ok(())
    }

    async fn delete_tag(
        &mut self,
        repository: &RepositoryName,
        tag: &Tag,
        now: UnixSeconds,
    ) -> Result<Option<Digest>, Error> {
        let Some(id) = repository::find(&mut *self.connection, repository).await? else {
            return Ok(None);
        };
        self.touch_tagged(id, tag, now).await?;
        let digest: Option<String> = sqlx::query_scalar(
            "DELETE FROM tags WHERE repository = $1 AND name = $2 RETURNING digest",
        )
        .bind(id)
        .bind(tag.as_str())
        .fetch_optional(&mut *self.connection)
        .await?;
        self.invalidate(Key::Tag(repository.clone(), tag.clone()));
        digest.as_deref().map(parse).transpose()
    }
}
