//! How much there is of everything, counted in pages by key: whoever else reads waits for a page
//! and not for a table.

use berth_shared::{
    clock::UnixSeconds,
    database::{Bind, Row, Statements},
};
use serde::{Deserialize, Serialize};
use sqlx::AssertSqlSafe;

use super::{Database, Error, repository::RepositoryId};

/// Rows that are counted in one statement.
const PAGE: u32 = 10_000;

/// How much there is of everything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Totals {
    pub(crate) repositories: u64,
    pub(crate) manifests: u64,
    pub(crate) tags: u64,
    pub(crate) uploads: u64,
    pub(crate) blobs: BlobTotals,
}

/// How much there is of blobs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
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
        let tags = self.count::<(RepositoryId, String)>("tags", "repository, name", "$2, $3");
        Ok(Totals {
            repositories: self.count_repositories().await?,
            manifests: self.count_manifests().await?,
            tags: tags.await?,
            uploads: self.count::<String>("uploads", "id", "$2").await?,
            blobs: self.count_blobs().await?,
        })
    }

    /// What one of several servers has counted for all, and when.
    pub(crate) async fn kept_totals(&self) -> Result<Option<(UnixSeconds, Totals)>, Error> {
        let statement = "SELECT at, counted FROM totals WHERE id = 1";
        let kept: Option<(UnixSeconds, String)> =
            self.reader().await?.optional(statement, ()).await?;
        // What another version wrote may say something else, and is counted anew.
        Ok(kept.and_then(|(at, text)| Some((at, serde_json::from_str(&text).ok()?))))
    }

    /// Keeps what was counted, for all servers.
    pub(crate) async fn keep_totals(&self, totals: Totals, now: UnixSeconds) -> Result<(), Error> {
        let counted = serde_json::to_string(&totals).unwrap_or_default();
        self.write_one(counted, move |tx, counted| {
            Box::pin(async move {
                let statement = "INSERT INTO totals (id, at, counted) VALUES (1, $1, $2)
                     ON CONFLICT (id) DO UPDATE SET at = excluded.at, counted = excluded.counted";
                tx.run(statement, (now, counted)).await.map(drop)
            })
        })
        .await
    }

    /// Counts the repositories.
    pub(crate) async fn count_repositories(&self) -> Result<u64, Error> {
        self.count::<String>("repositories", "name", "$2").await
    }

    /// Counts the manifests, by rows that hold no bytes of them.
    pub(crate) async fn count_manifests(&self) -> Result<u64, Error> {
        let (table, key) = ("manifest_touches", "repository, digest");
        self.count::<(RepositoryId, String)>(table, key, "$2, $3").await
    }

    /// Counts the rows of a table, by looks at the key of the row that is so many behind another, and
    /// when there is none any more by those that are left.
    async fn count<K: Row + Bind + Default>(
        &self,
        table: &str,
        key: &str,
        places: &str,
    ) -> Result<u64, Error> {
        let (mut total, mut last) = (0, K::default());
        loop {
            let skip = format!(
                "SELECT {key} FROM {table} WHERE ({key}) > ({places})
                 ORDER BY {key} LIMIT 1 OFFSET $1"
            );
            let (skip, values) = (AssertSqlSafe(skip), (PAGE - 1, &last));
            let Some(next) = self.reader().await?.optional(skip, values).await? else { break };
            total += u64::from(PAGE);
            last = next;
        }
        let rest = format!(
            "SELECT COUNT(*) FROM (SELECT 1 FROM {table} WHERE ({key}) > ({places}) LIMIT $1) p"
        );
        let left: u64 = self.reader().await?.one(AssertSqlSafe(rest), (PAGE, &last)).await?;
        Ok(total + left)
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
}
