//! What the inventory asks: how much each repository and each image takes. Repository by repository
//! and tag by tag, so that no statement reads all that is stored.

use berth_shared::{
    clock::{UnixSeconds, as_rfc3339},
    database::{Statements, row},
    name::RepositoryName,
};
use serde::Serialize;

use super::{
    Database, Error,
    repository::{self, RepositoryId},
};

/// Names that are read at once.
const PAGE: u32 = 1000;

/// A repository and what it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Holding {
    /// Its name.
    pub repository: String,
    /// How many tags it has.
    pub tags: u64,
    /// How many manifests it has.
    pub manifests: u64,
    /// How many of those no tag leads to, not through an index either.
    pub untagged: u64,
    /// The bytes of blobs that only this repository holds.
    pub own_bytes: u64,
    /// The bytes of blobs that other repositories hold too.
    pub shared_bytes: u64,
}

/// A tag and what it leads to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TaggedImage {
    /// The tag.
    pub tag: String,
    /// The digest of the manifest.
    pub digest: String,
    /// The bytes of the blobs that the image needs, through indexes too, each counted once.
    pub bytes: u64,
    /// When the tag was last pushed.
    #[serde(serialize_with = "as_rfc3339")]
    pub pushed: UnixSeconds,
}

row!(Holding { repository, tags, manifests, untagged, own_bytes, shared_bytes });
row!(TaggedImage { tag, digest, bytes, pushed });

impl Database {
    /// All repositories with content, in byte order.
    ///
    /// # Errors
    /// When a query fails.
    pub async fn holdings(&self) -> Result<Vec<Holding>, Error> {
        let mut rows = Vec::new();
        let mut last = String::new();
        loop {
            let statement =
                "SELECT id, name FROM repositories WHERE name > $1 ORDER BY name LIMIT $2";
            let page: Vec<(RepositoryId, String)> =
                self.reader().await?.all(statement, (&last, PAGE)).await?;
            let Some((_, end)) = page.last() else { return Ok(rows) };
            last.clone_from(end);
            for (id, _) in page {
                rows.extend(self.holding_of(id).await?);
            }
        }
    }

    /// The repository of that name, if it has content.
    ///
    /// # Errors
    /// When a query fails.
    pub async fn holding(&self, name: &RepositoryName) -> Result<Option<Holding>, Error> {
        let found = repository::find(self.reader().await?.connection(), name).await?;
        match found {
            Some(id) => self.holding_of(id).await,
            None => Ok(None),
        }
    }

    async fn holding_of(&self, repository: RepositoryId) -> Result<Option<Holding>, Error> {
        let statement = "WITH RECURSIVE reached (digest) AS (
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
             SELECT r.name AS repository,
             (SELECT COUNT(*) FROM tags t WHERE t.repository = $1) AS tags,
             (SELECT COUNT(*) FROM manifest_touches m WHERE m.repository = $1) AS manifests,
             (SELECT COUNT(*) FROM manifest_touches m WHERE m.repository = $1
              AND m.digest NOT IN (SELECT digest FROM reached)) AS untagged,
             (SELECT CAST(COALESCE(SUM(CASE WHEN is_shared THEN 0 ELSE size END), 0) AS BIGINT)
              FROM held) AS own_bytes,
             (SELECT CAST(COALESCE(SUM(CASE WHEN is_shared THEN size ELSE 0 END), 0) AS BIGINT)
              FROM held) AS shared_bytes
             FROM repositories r WHERE r.id = $1
             AND (EXISTS (SELECT 1 FROM manifest_touches m WHERE m.repository = $1)
                  OR EXISTS (SELECT 1 FROM repository_blobs l WHERE l.repository = $1))";
        self.reader().await?.optional(statement, repository).await
    }

    /// The bytes of the blobs that more than one repository holds, each counted once.
    ///
    /// # Errors
    /// When a query fails.
    pub async fn shared_bytes(&self) -> Result<u64, Error> {
        let (mut total, mut last) = (0, Some(String::new()));
        while let Some(behind) = last {
            let statement =
                "SELECT CAST(COALESCE(SUM(CASE WHEN is_shared THEN size ELSE 0 END), 0) AS BIGINT),
                 MAX(digest) FROM (
                     SELECT b.digest, b.size, EXISTS (
                         SELECT 1 FROM repository_blobs l WHERE l.digest = b.digest
                         LIMIT 1 OFFSET 1) AS is_shared
                     FROM blobs b WHERE b.digest > $1 ORDER BY b.digest LIMIT $2) p";
            let bytes: u64;
            (bytes, last) = self.reader().await?.one(statement, (behind, PAGE)).await?;
            total += bytes;
        }
        Ok(total)
    }

    /// The tags of a repository in byte order. An image's size is that of the blobs which it
    /// reaches, through indexes too, each counted once.
    ///
    /// # Errors
    /// When a query fails.
    pub async fn images(&self, repository: &RepositoryName) -> Result<Vec<TaggedImage>, Error> {
        let mut rows: Vec<TaggedImage> = Vec::new();
        let Some(id) = repository::find(self.reader().await?.connection(), repository).await?
        else {
            return Ok(rows);
        };
        loop {
            let last = rows.last().map_or("", |row| row.tag.as_str());
            let statement =
                "SELECT name AS tag, digest, updated AS pushed, CAST(0 AS BIGINT) AS bytes
                 FROM tags
                 WHERE repository = $1 AND name > $2 ORDER BY name LIMIT $3";
            let page: Vec<TaggedImage> =
                self.reader().await?.all(statement, (id, last, PAGE)).await?;
            if page.is_empty() {
                return Ok(rows);
            }
            for row in page {
                let bytes = self.image_bytes(id, &row.digest).await?;
                rows.push(TaggedImage { bytes, ..row });
            }
        }
    }

    async fn image_bytes(&self, repository: RepositoryId, manifest: &str) -> Result<u64, Error> {
        let statement = "WITH RECURSIVE reached (digest) AS (
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
             WHERE b.digest = c.digest";
        self.reader().await?.one(statement, (repository, manifest)).await
    }
}
