//! What the inventory asks: how much each repository and each image takes.

use berth_shared::{clock::UnixSeconds, name::RepositoryName};
use sqlx::FromRow;

use super::{Database, Error, unsigned};

/// A repository and what it holds, as the database counts it.
#[derive(Debug, FromRow)]
pub(crate) struct RepositoryRow {
    pub(crate) name: String,
    pub(crate) tags: i64,
    pub(crate) manifests: i64,
    pub(crate) untagged: i64,
    pub(crate) own: i64,
    pub(crate) shared: i64,
}

/// How much there is of everything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) repositories: u64,
    pub(crate) manifests: u64,
    pub(crate) tags: u64,
    pub(crate) blobs: u64,
    /// Of all blobs, each counted once.
    pub(crate) bytes: u64,
    /// Of the blobs, those that are known not to be what their digest says.
    pub(crate) damaged: u64,
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
    /// All repositories with content, or the one of that name, in byte order.
    pub(crate) async fn repository_rows(
        &self,
        only: Option<&RepositoryName>,
    ) -> Result<Vec<RepositoryRow>, Error> {
        let rows = sqlx::query_as(
            "WITH RECURSIVE reached (repository, digest) AS (
                 SELECT repository, digest FROM tags
                 UNION
                 SELECT r.repository, r.digest FROM reached t JOIN manifest_references r
                 ON r.repository = t.repository AND r.manifest = t.digest AND r.kind = 'child'
             ), held AS (
                 SELECT l.repository, b.size, EXISTS (
                     SELECT 1 FROM repository_blobs o
                     WHERE o.digest = l.digest AND o.repository <> l.repository) AS is_shared
                 FROM repository_blobs l JOIN blobs b ON b.digest = l.digest
             ), bytes AS (
                 SELECT repository, SUM(IIF(is_shared, 0, size)) AS own,
                 SUM(IIF(is_shared, size, 0)) AS shared FROM held GROUP BY repository
             )
             SELECT r.name,
             (SELECT COUNT(*) FROM tags t WHERE t.repository = r.id) AS tags,
             (SELECT COUNT(*) FROM manifests m WHERE m.repository = r.id) AS manifests,
             (SELECT COUNT(*) FROM manifests m WHERE m.repository = r.id
              AND (m.repository, m.digest) NOT IN (SELECT * FROM reached)) AS untagged,
             COALESCE(bytes.own, 0) AS own, COALESCE(bytes.shared, 0) AS shared
             FROM repositories r LEFT JOIN bytes ON bytes.repository = r.id
             WHERE ($1 IS NULL OR r.name = $1) AND (bytes.own IS NOT NULL
             OR EXISTS (SELECT 1 FROM manifests m WHERE m.repository = r.id))
             ORDER BY r.name",
        )
        .bind(only.map(RepositoryName::as_str))
        .fetch_all(self.readers())
        .await?;
        Ok(rows)
    }

    /// How many repositories and manifests there are.
    pub(crate) async fn counts(&self) -> Result<(u64, u64), Error> {
        let (repositories, manifests): (i64, i64) = sqlx::query_as(
            "SELECT (SELECT COUNT(*) FROM repositories), (SELECT COUNT(*) FROM manifests)",
        )
        .fetch_one(self.readers())
        .await?;
        Ok((unsigned(repositories)?, unsigned(manifests)?))
    }

    /// Counts everything. This reads all rows of blobs.
    pub(crate) async fn totals(&self) -> Result<Totals, Error> {
        type Row = (i64, i64, i64, i64, i64, i64);
        let (repositories, manifests, tags, blobs, bytes, damaged): Row = sqlx::query_as(
            "SELECT (SELECT COUNT(*) FROM repositories), (SELECT COUNT(*) FROM manifests),
             (SELECT COUNT(*) FROM tags), COUNT(*), COALESCE(SUM(size), 0), COUNT(damaged)
             FROM blobs",
        )
        .fetch_one(self.readers())
        .await?;
        Ok(Totals {
            repositories: unsigned(repositories)?,
            manifests: unsigned(manifests)?,
            tags: unsigned(tags)?,
            blobs: unsigned(blobs)?,
            bytes: unsigned(bytes)?,
            damaged: unsigned(damaged)?,
        })
    }

    /// How many upload sessions there are.
    pub(crate) async fn upload_count(&self) -> Result<u64, Error> {
        let query = sqlx::query_scalar("SELECT COUNT(*) FROM uploads");
        let uploads: i64 = query.fetch_one(self.readers()).await?;
        unsigned(uploads)
    }

    /// The bytes of the blobs that more than one repository holds, each counted once.
    pub(crate) async fn shared_bytes(&self) -> Result<u64, Error> {
        let bytes: i64 = sqlx::query_scalar(
            "SELECT COALESCE(SUM(b.size), 0) FROM blobs b WHERE
             (SELECT COUNT(*) FROM repository_blobs l WHERE l.digest = b.digest) > 1",
        )
        .fetch_one(self.readers())
        .await?;
        unsigned(bytes)
    }

    /// The tags of a repository in byte order. An image's size is that of the blobs which it
    /// reaches, through indexes too, each counted once.
    pub(crate) async fn tag_rows(&self, repository: &RepositoryName) -> Result<Vec<TagRow>, Error> {
        let rows = sqlx::query_as(
            "WITH RECURSIVE reached (repository, tag, digest) AS (
                 SELECT t.repository, t.name, t.digest
                 FROM repositories r JOIN tags t ON t.repository = r.id WHERE r.name = $1
                 UNION
                 SELECT r.repository, t.tag, r.digest FROM reached t JOIN manifest_references r
                 ON r.repository = t.repository AND r.manifest = t.digest AND r.kind = 'child'
             ), content AS (
                 SELECT DISTINCT t.tag, r.digest FROM reached t JOIN manifest_references r
                 ON r.repository = t.repository AND r.manifest = t.digest
                 AND r.kind IN ('config', 'layer')
             ), sizes AS (
                 SELECT c.tag, SUM(b.size) AS size
                 FROM content c JOIN blobs b ON b.digest = c.digest GROUP BY c.tag
             )
             SELECT t.name, t.digest, t.updated, COALESCE(sizes.size, 0) AS size
             FROM repositories r JOIN tags t ON t.repository = r.id
             LEFT JOIN sizes ON sizes.tag = t.name WHERE r.name = $1 ORDER BY t.name",
        )
        .bind(repository.as_str())
        .fetch_all(self.readers())
        .await?;
        Ok(rows)
    }
}
