//! What verification asks and records: which blobs to look at, and what was found.

use berth_shared::{clock::UnixSeconds, digest::Digest};

use super::{
    Database, Error, Transaction,
    blob::{Blob, Row},
    signed,
};
use crate::storage::Location;

/// Blobs as they stand in the database, some of which may be unreadable.
#[derive(Debug, Default)]
pub(crate) struct BlobPage {
    pub(crate) blobs: Vec<Blob>,
    /// Digests, as they stand there.
    pub(crate) unreadable: Vec<String>,
    /// Where the next page begins; `None` behind the last one.
    pub(crate) next: Option<Checked>,
}

/// A place in the order in which blobs were last checked, or only in that of their digests.
#[derive(Debug, Clone, Default)]
pub(crate) struct Checked {
    checked: UnixSeconds,
    digest: String,
}

#[derive(sqlx::FromRow)]
struct CheckedRow {
    #[sqlx(flatten)]
    row: Row,
    checked: UnixSeconds,
}

impl From<Vec<CheckedRow>> for BlobPage {
    fn from(rows: Vec<CheckedRow>) -> Self {
        let mut page = Self::default();
        for CheckedRow { row, checked } in rows {
            let digest = row.digest.clone();
            match row.try_into() {
                Ok(blob) => page.blobs.push(blob),
                Err(_) => page.unreadable.push(digest.clone()),
            }
            page.next = Some(Checked { checked, digest });
        }
        page
    }
}

impl Database {
    /// Up to `limit` blobs behind `last`, in byte order of their digests.
    pub(crate) async fn blobs_after(&self, last: &Checked, limit: u32) -> Result<BlobPage, Error> {
        let rows: Vec<CheckedRow> = sqlx::query_as(
            "SELECT digest, size, location, damaged, checked FROM blobs WHERE digest > $1
             ORDER BY digest LIMIT $2",
        )
        .bind(&last.digest)
        .bind(limit)
        .fetch_all(self.readers())
        .await?;
        Ok(rows.into())
    }

    /// Up to `limit` blobs behind `last` that were last checked before `cutoff`, those first that
    /// wait longest.
    pub(crate) async fn blobs_unchecked_since(
        &self,
        cutoff: UnixSeconds,
        last: &Checked,
        limit: u32,
    ) -> Result<BlobPage, Error> {
        let rows: Vec<CheckedRow> = sqlx::query_as(
            "SELECT digest, size, location, damaged, checked FROM blobs
             WHERE checked < $1 AND (checked, digest) > ($2, $3) ORDER BY checked, digest LIMIT $4",
        )
        .bind(cutoff)
        .bind(last.checked)
        .bind(&last.digest)
        .bind(limit)
        .fetch_all(self.readers())
        .await?;
        Ok(rows.into())
    }

    /// How many blobs there are, and how many bytes.
    pub(crate) async fn blob_totals(&self) -> Result<(u64, u64), Error> {
        let (count, bytes): (i64, i64) =
            sqlx::query_as("SELECT COUNT(*), COALESCE(SUM(size), 0) FROM blobs")
                .fetch_one(self.readers())
                .await?;
        Ok((super::unsigned(count)?, super::unsigned(bytes)?))
    }

    /// Up to `limit` images that need the blob or manifest, as `repository:tag`, or
    /// `repository@digest` where no tag leads there.
    pub(crate) async fn images_with(
        &self,
        digest: &Digest,
        limit: u32,
    ) -> Result<Vec<String>, Error> {
        let images = sqlx::query_scalar(
            "WITH RECURSIVE above (repository, digest) AS (
                 SELECT m.repository, m.manifest FROM repositories r
                 JOIN manifest_references m ON m.repository = r.id AND m.digest = $1
                 WHERE m.kind <> 'subject'
                 UNION
                 SELECT repository, digest FROM manifests WHERE digest = $1
                 UNION
                 SELECT m.repository, m.manifest FROM above a JOIN manifest_references m
                 ON m.repository = a.repository AND m.digest = a.digest AND m.kind = 'child'
             )
             SELECT r.name || ':' || t.name FROM above a
             JOIN repositories r ON r.id = a.repository
             JOIN tags t ON t.repository = a.repository AND t.digest = a.digest
             UNION
             SELECT r.name || '@' || a.digest FROM above a
             JOIN repositories r ON r.id = a.repository
             WHERE NOT EXISTS (SELECT 1 FROM tags t
                               WHERE t.repository = a.repository AND t.digest = a.digest)
             AND NOT EXISTS (SELECT 1 FROM manifest_references m
                             WHERE m.repository = a.repository AND m.digest = a.digest
                             AND m.kind = 'child')
             ORDER BY 1 LIMIT $2",
        )
        .bind(digest.as_str())
        .bind(limit)
        .fetch_all(self.readers())
        .await?;
        Ok(images)
    }

    /// Up to `limit` manifests behind `last`, with their bytes.
    pub(crate) async fn manifests_after(
        &self,
        last: &(i64, String),
        limit: u32,
    ) -> Result<Vec<StoredManifest>, Error> {
        let rows = sqlx::query_as(
            "SELECT r.id, r.name AS repository, m.digest, m.bytes FROM manifests m
             JOIN repositories r ON r.id = m.repository
             WHERE (m.repository, m.digest) > ($1, $2)
             ORDER BY m.repository, m.digest LIMIT $3",
        )
        .bind(last.0)
        .bind(&last.1)
        .bind(limit)
        .fetch_all(self.readers())
        .await?;
        Ok(rows)
    }
}

/// A manifest as it lies in the database.
#[derive(Debug, sqlx::FromRow)]
pub(crate) struct StoredManifest {
    pub(crate) id: i64,
    pub(crate) repository: String,
    pub(crate) digest: String,
    pub(crate) bytes: Vec<u8>,
}

impl Transaction<'_> {
    /// Records that the object at the blob's location was found sound, or damaged. `false` when
    /// the blob lies elsewhere by now.
    pub(crate) async fn record_check(
        &mut self,
        blob: &Blob,
        damaged: bool,
        now: UnixSeconds,
    ) -> Result<bool, Error> {
        let found = sqlx::query(
            "UPDATE blobs SET checked = $3,
             damaged = CASE WHEN $4 THEN COALESCE(damaged, $3) ELSE damaged END
             WHERE digest = $1 AND location = $2",
        )
        .bind(blob.digest.as_str())
        .bind(blob.location.as_str())
        .bind(now)
        .bind(damaged)
        .execute(&mut *self.connection)
        .await?
        .rows_affected();
        if damaged {
            self.invalidate_blob(&blob.digest).await?;
        }
        Ok(found > 0)
    }

    /// Serves a damaged blob again, out of the object at `location`, which was found sound.
    pub(crate) async fn repair(
        &mut self,
        blob: &Blob,
        location: &Location,
        now: UnixSeconds,
    ) -> Result<bool, Error> {
        let found = sqlx::query(
            "UPDATE blobs SET location = $3, size = $4, checked = $5, damaged = NULL
             WHERE digest = $1 AND location = $2",
        )
        .bind(blob.digest.as_str())
        .bind(blob.location.as_str())
        .bind(location.as_str())
        .bind(signed(blob.size)?)
        .bind(now)
        .execute(&mut *self.connection)
        .await?
        .rows_affected();
        self.invalidate_blob(&blob.digest).await?;
        Ok(found > 0)
    }
}
