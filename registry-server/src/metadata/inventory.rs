//! What the inventory asks: how much each repository and each image takes. Repository by repository
//! and tag by tag, so that no statement reads all that is stored.

use berth_shared::{clock::UnixSeconds, name::RepositoryName};
use sqlx::FromRow;

use super::{
    Database, Error,
    column::unsigned,
    repository::{self, RepositoryId},
};

/// Names that are read at once.
const PAGE: u32 = 1000;

/// A repository and what it holds, as the database counts it.
#[derive(Debug, FromRow)]
pub(crate) struct RepositoryRow {
    pub(crate) name: String,
    pub(crate) tags: i64,
    pub(crate) manifests: i64,
    pub(crate) untagged: i64,
    pub(crate) blobs: i64,
    pub(crate) own: i64,
    pub(crate) shared: i64,
}

/// A tag and what it leads to, as the database counts it.
#[derive(Debug, FromRow)]
pub(crate) struct TagRow {
    pub(crate) name: String,
    pub(crate) digest: String,
    pub(crate) size: i64,
    pub(crate) updated: UnixSeconds,
}

impl Database {
    /// All repositories with content, in byte order.
    pub(crate) async fn repository_rows(&self) -> Result<Vec<RepositoryRow>, Error> {
        let mut rows = Vec::new();
        let mut last = String::new();
        loop {
            let page: Vec<(RepositoryId, String)> = sqlx::query_as(
                "SELECT id, name FROM repositories WHERE name > $1 ORDER BY name LIMIT $2",
            )
            .bind(&last)
            .bind(i64::from(PAGE))
            .fetch_all(&mut *self.reader().await?)
            .await?;
            let Some((_, end)) = page.last() else { return Ok(rows) };
            last.clone_from(end);
            for (id, _) in page {
                rows.extend(self.row_of(id).await?);
            }
        }
    }

    /// The repository of that name, if it has content.
    pub(crate) async fn repository_row(
        &self,
        name: &RepositoryName,
    ) -> Result<Option<RepositoryRow>, Error> {
        let found = repository::find(&mut *self.reader().await?, name).await?;
        match found {
            Some(id) => self.row_of(id).await,
            None => Ok(None),
        }
    }

    async fn row_of(&self, repository: RepositoryId) -> Result<Option<RepositoryRow>, Error> {
        let row: Option<RepositoryRow> = sqlx::query_as(
            "WITH RECURSIVE reached (digest) AS (
                 SELECT digest FROM tags WHERE repository = $1
                 UNION
                 SELECT m.digest FROM reached t CROSS JOIN manifest_references m
                 WHERE m.repository = $1 AND m.manifest = t.digest AND m.kind = 'child'
             ), held AS MATERIALIZED (
                 SELECT b.size, EXISTS (
                     SELECT 1 FROM repository_blobs o
                     WHERE o.digest = l.digest AND o.repository <> l.repository) AS is_shared
                 FROM repository_blobs l CROSS JOIN blobs b
                 WHERE l.repository = $1 AND b.digest = l.digest
             )
             SELECT r.name,
             (SELECT COUNT(*) FROM tags t WHERE t.repository = $1) AS tags,
             (SELECT COUNT(*) FROM manifest_touches m WHERE m.repository = $1) AS manifests,
             (SELECT COUNT(*) FROM manifest_touches m WHERE m.repository = $1
              AND m.digest NOT IN (SELECT digest FROM reached)) AS untagged,
             (SELECT COUNT(*) FROM held) AS blobs,
             (SELECT CAST(COALESCE(SUM(CASE WHEN is_shared THEN 0 ELSE size END), 0) AS BIGINT)
              FROM held) AS own,
             (SELECT CAST(COALESCE(SUM(CASE WHEN is_shared THEN size ELSE 0 END), 0) AS BIGINT)
              FROM held) AS shared
             FROM repositories r WHERE r.id = $1",
        )
        .bind(repository)
        .fetch_optional(&mut *self.reader().await?)
        .await?;
        Ok(row.filter(|row| row.manifests > 0 || row.blobs > 0))
    }

    /// The bytes of the blobs that more than one repository holds, each counted once.
    pub(crate) async fn shared_bytes(&self) -> Result<u64, Error> {
        let (mut total, mut last) = (0, Some(String::new()));
        while let Some(behind) = last {
            let bytes: i64;
            (bytes, last) = sqlx::query_as(
                "SELECT CAST(COALESCE(SUM(CASE WHEN is_shared THEN size ELSE 0 END), 0) AS BIGINT),
                 MAX(digest) FROM (
                     SELECT b.digest, b.size, EXISTS (
                         SELECT 1 FROM repository_blobs l WHERE l.digest = b.digest
                         LIMIT 1 OFFSET 1) AS is_shared
                     FROM blobs b WHERE b.digest > $1 ORDER BY b.digest LIMIT $2) p",
            )
            .bind(behind)
            .bind(i64::from(PAGE))
            .fetch_one(&mut *self.reader().await?)
            .await?;
            total += unsigned(bytes)?;
        }
        Ok(total)
    }

    /// The tags of a repository in byte order. An image's size is that of the blobs which it
    /// reaches, through indexes too, each counted once.
    pub(crate) async fn tag_rows(&self, repository: &RepositoryName) -> Result<Vec<TagRow>, Error> {
        let mut rows: Vec<TagRow> = Vec::new();
        let Some(id) = repository::find(&mut *self.reader().await?, repository).await? else {
            return Ok(rows);
        };
        loop {
            let last = rows.last().map_or("", |row| row.name.as_str());
            let page: Vec<TagRow> = sqlx::query_as(
                "SELECT name, digest, updated, CAST(0 AS BIGINT) AS size FROM tags
                 WHERE repository = $1 AND name > $2 ORDER BY name LIMIT $3",
            )
            .bind(id)
            .bind(last)
            .bind(i64::from(PAGE))
            .fetch_all(&mut *self.reader().await?)
            .await?;
            if page.is_empty() {
                return Ok(rows);
            }
            for row in page {
                let size = self.image_size(id, &row.digest).await?;
                rows.push(TagRow { size, ..row });
            }
        }
    }

    async fn image_size(&self, repository: RepositoryId, manifest: &str) -> Result<i64, Error> {
        let size = sqlx::query_scalar(
            "WITH RECURSIVE reached (digest) AS (
                 SELECT digest FROM manifests WHERE repository = $1 AND digest = $2
                 UNION
                 SELECT m.digest FROM reached t CROSS JOIN manifest_references m
                 WHERE m.repository = $1 AND m.manifest = t.digest AND m.kind = 'child'
             ), content (digest) AS MATERIALIZED (
                 SELECT DISTINCT m.digest FROM reached t CROSS JOIN manifest_references m
                 WHERE m.repository = $1 AND m.manifest = t.digest
                 AND m.kind IN ('config', 'layer')
             )
             SELECT CAST(COALESCE(SUM(b.size), 0) AS BIGINT) FROM content c CROSS JOIN blobs b
             WHERE b.digest = c.digest",
        );
        Ok(size.bind(repository).bind(manifest).fetch_one(&mut *self.reader().await?).await?)
    }
}
