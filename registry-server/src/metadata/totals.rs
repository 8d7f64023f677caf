//! How much there is of everything, counted in pages by key: whoever else reads waits for a page
//! and not for a table.

use super::{Database, Error, statement::Statements};

/// Rows that are counted in one statement.
const PAGE: u32 = 10_000;

/// How much there is of everything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) repositories: u64,
    pub(crate) manifests: u64,
    pub(crate) tags: u64,
    pub(crate) uploads: u64,
    pub(crate) blobs: BlobTotals,
}

/// How much there is of blobs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct BlobTotals {
    pub(crate) count: u64,
    /// Of all of them, each counted once.
    pub(crate) bytes: u64,
    /// Those that are known not to be what their digest says.
    pub(crate) damaged: u64,
}

impl Database {
    /// Counts everything. To be asked by who can wait: no request can.
    pub(crate) async fn totals(&self) -> Result<Totals, Error> {
        Ok(Totals {
            repositories: self.count_repositories().await?,
            manifests: self.count_manifests().await?,
            tags: self.count_tags().await?,
            uploads: self.count_uploads().await?,
            blobs: self.count_blobs().await?,
        })
    }

    /// Counts the repositories.
    pub(crate) async fn count_repositories(&self) -> Result<u64, Error> {
        self.count(
            "SELECT COUNT(*), MAX(name)
             FROM (SELECT name FROM repositories WHERE name > $1 ORDER BY name LIMIT $2) p",
        )
        .await
    }

    /// Counts the upload sessions.
    async fn count_uploads(&self) -> Result<u64, Error> {
        self.count(
            "SELECT COUNT(*), MAX(id)
             FROM (SELECT id FROM uploads WHERE id > $1 ORDER BY id LIMIT $2) p",
        )
        .await
    }

    /// Counts by `page`, which gives how many come next and the last of them.
    async fn count(&self, page: &'static str) -> Result<u64, Error> {
        let (mut total, mut last) = (0, Some(String::new()));
        while let Some(behind) = last {
            let count: u64;
            (count, last) = self.reader().await?.one(page, (behind, PAGE)).await?;
            total += count;
        }
        Ok(total)
    }

    /// Counts the blobs.
    pub(crate) async fn count_blobs(&self) -> Result<BlobTotals, Error> {
        let (mut total, mut last) = (BlobTotals::default(), Some(String::new()));
        while let Some(behind) = last {
            let statement =
                "SELECT COUNT(*), CAST(COALESCE(SUM(size), 0) AS BIGINT), COUNT(damaged), MAX(digest)
                 FROM (SELECT digest, size, damaged FROM blobs
                       WHERE digest > $1 ORDER BY digest LIMIT $2) p";
            let (count, bytes, damaged): (u64, u64, u64);
            (count, bytes, damaged, last) =
                self.reader().await?.one(statement, (behind, PAGE)).await?;
            total.count += count;
            total.bytes += bytes;
            total.damaged += damaged;
        }
        Ok(total)
    }

    /// Counts the manifests, by rows that hold no bytes of them.
    pub(crate) async fn count_manifests(&self) -> Result<u64, Error> {
        self.count_in_repositories(
            "SELECT repository, digest FROM manifest_touches WHERE (repository, digest) > ($1, $2)
             ORDER BY repository, digest LIMIT 1 OFFSET $3",
            "SELECT COUNT(*) FROM (SELECT 1 FROM manifest_touches
                                   WHERE (repository, digest) > ($1, $2) LIMIT $3) p",
        )
        .await
    }

    async fn count_tags(&self) -> Result<u64, Error> {
        self.count_in_repositories(
            "SELECT repository, name FROM tags WHERE (repository, name) > ($1, $2)
             ORDER BY repository, name LIMIT 1 OFFSET $3",
            "SELECT COUNT(*) FROM (SELECT 1 FROM tags WHERE (repository, name) > ($1, $2) LIMIT $3) p",
        )
        .await
    }

    /// Counts by `skip`, which gives the row that is so many behind another, and when there is none
    /// any more by `rest`, which counts those that are left.
    async fn count_in_repositories(
        &self,
        skip: &'static str,
        rest: &'static str,
    ) -> Result<u64, Error> {
        let (mut total, mut last) = (0, (0_i64, String::new()));
        while let Some(next) =
            self.reader().await?.optional(skip, (last.0, &last.1, PAGE - 1)).await?
        {
            total += u64::from(PAGE);
            last = next;
        }
        let left: u64 = self.reader().await?.one(rest, (last.0, &last.1, PAGE)).await?;
        Ok(total + left)
    }
}
