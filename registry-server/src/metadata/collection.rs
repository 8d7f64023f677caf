//! What collection asks: what nothing keeps alive any more, a page at a time, and its deletion in
//! transactions that look again.
//!
//! Each comes with its names as text: an entry that cannot be read is to be reported and skipped,
//! not to stop the rest.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use berth_shared::{
    clock::UnixSeconds,
    database::{Statements, row},
    digest::Digest,
    name::RepositoryName,
};
use sqlx::AssertSqlSafe;

use super::{
    Database, Error, Rows, Transaction, deletion::ROWS_MAX, key::Key, lock::Lock,
    repository::RepositoryId,
};
use crate::storage::{Dead, Location};

/// How long one transaction deletes, before its commit: what a push may have to wait for. Each row is
/// in several indexes, and their pages may have to come from the disk.
const STEP_TIME: Duration = Duration::from_millis(10);

/// A part of a long list: what was found in it, and where the next part begins.
type Part<T, Cursor> = (T, Option<Cursor>);

/// Something that a repository holds and nothing keeps alive.
#[derive(Debug, Clone)]
pub(crate) struct Stale {
    pub(crate) id: RepositoryId,
    pub(crate) repository: RepositoryName,
    pub(crate) digest: Digest,
    pub(crate) size: i64,
    /// Where the blob's object lies; a manifest has none.
    #[expect(dead_code, reason = "a blob that lies nowhere is not to be read")]
    location: Option<Location>,
}

/// Such things by repository, digest and location.
pub(crate) type StaleRows = Rows<(String, String, Option<String>), Stale>;

/// What became of a blob in a repository.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Collected {
    /// Somebody has come to need it since it was found.
    Kept,
    /// It is gone here; other repositories hold it.
    Unlinked,
    /// It is gone altogether.
    Freed(Dead),
}

/// A blob goes from a repository when no manifest there names it, as whatever that is, and nobody
/// touched it lately.
const IS_STALE: &str = "l.touched < $3 AND NOT EXISTS (
    SELECT 1 FROM manifest_references m
    WHERE m.repository = l.repository AND m.digest = l.digest AND m.kind <> 'subject')";

row!(Stale { id, repository, digest, size, location });

impl Database {
    /// Looks at the next `page` blobs of repositories for those that nothing has kept alive since
    /// `cutoff`.
    pub(crate) async fn stale_links(
        &self,
        (repository, digest): &(RepositoryId, String),
        page: u32,
        cutoff: UnixSeconds,
    ) -> Result<Part<StaleRows, (RepositoryId, String)>, Error> {
        let statement = "SELECT repository, digest FROM repository_blobs
             WHERE (repository, digest) > ($1, $2) ORDER BY repository, digest LIMIT 1 OFFSET $3";
        let next = self.reader().await?.optional(statement, (repository, digest, page)).await?;
        let statement = format!(
            "SELECT r.name AS repository, l.digest, b.location, r.id, b.size
             FROM (SELECT repository, digest, touched FROM repository_blobs
                   WHERE (repository, digest) > ($1, $2)
                   ORDER BY repository, digest LIMIT $4) l
             JOIN repositories r ON r.id = l.repository JOIN blobs b ON b.digest = l.digest
             WHERE {IS_STALE} ORDER BY l.repository, l.digest"
        );
        let values = (repository, digest, cutoff, u64::from(page) + 1);
        let found = self.reader().await?.all(AssertSqlSafe(statement), values).await?;
        Ok((found, next))
    }

    /// Looks at the next `page` blobs for those that no repository holds.
    pub(crate) async fn unlinked_blobs(
        &self,
        last: &str,
        page: u32,
    ) -> Result<Part<Rows<(String, String), (Digest, Location)>, String>, Error> {
        let statement =
            "SELECT digest FROM blobs WHERE digest > $1 ORDER BY digest LIMIT 1 OFFSET $2";
        let next = self.reader().await?.optional(statement, (last, page)).await?;
        let statement = "SELECT digest, location FROM
             (SELECT digest, location FROM blobs WHERE digest > $1 ORDER BY digest LIMIT $2) b
             WHERE NOT EXISTS (SELECT 1 FROM repository_blobs l WHERE l.digest = b.digest)
             ORDER BY digest";
        let found = self.reader().await?.all(statement, (last, u64::from(page) + 1)).await?;
        Ok((found, next))
    }

    /// Up to `limit` manifests of a repository, behind `last`, that neither a tag nor anything touched
    /// since `cutoff` keeps alive: marked through children, subjects, and what refers to a subject.
    pub(crate) async fn unreached_manifests(
        &self,
        repository: RepositoryId,
        cutoff: UnixSeconds,
        last: &str,
        limit: u32,
    ) -> Result<StaleRows, Error> {
        // What refers to a subject is found by its reference. PostgreSQL lets `live` name itself once.
        let statement = "WITH RECURSIVE live (digest) AS (
                 SELECT digest FROM tags WHERE repository = $1
                 UNION
                 SELECT digest FROM manifest_touches WHERE repository = $1 AND touched >= $2
                 UNION
                 SELECT CASE WHEN r.manifest = l.digest THEN r.digest ELSE r.manifest END
                 FROM live l CROSS JOIN manifest_references r
                 WHERE (r.repository = $1 AND r.manifest = l.digest
                        AND r.kind IN ('child', 'subject'))
                 OR (r.repository = $1 AND r.digest = l.digest AND r.kind = 'subject')
             )
             SELECT r.name AS repository, m.digest, NULL AS location, r.id, m.size
             FROM repositories r CROSS JOIN manifest_touches t CROSS JOIN manifests m
             WHERE r.id = $1 AND t.repository = r.id AND t.digest > $3
             AND t.digest NOT IN (SELECT digest FROM live)
             AND m.repository = t.repository AND m.digest = t.digest ORDER BY t.digest LIMIT $4";
        self.reader().await?.all(statement, (repository, cutoff, last, limit)).await
    }

    /// Up to `page` repositories behind `last`, by their numbers.
    pub(crate) async fn repository_ids(
        &self,
        last: RepositoryId,
        page: u32,
    ) -> Result<Vec<RepositoryId>, Error> {
        let statement = "SELECT id FROM repositories WHERE id > $1 ORDER BY id LIMIT $2";
        self.reader().await?.all(statement, (last, page)).await
    }

    /// Looks at the next `page` repositories for those that hold nothing.
    pub(crate) async fn empty_repositories(
        &self,
        last: RepositoryId,
        page: u32,
    ) -> Result<Part<Vec<(RepositoryId, String)>, RepositoryId>, Error> {
        let statement =
            "SELECT id, name, NOT EXISTS (SELECT 1 FROM manifests m WHERE m.repository = r.id)
             AND NOT EXISTS (SELECT 1 FROM repository_blobs l WHERE l.repository = r.id)
             FROM repositories r WHERE id > $1 ORDER BY id LIMIT $2";
        let rows: Vec<(RepositoryId, String, bool)> =
            self.reader().await?.all(statement, (last, page)).await?;
        let next = rows.last().map(|(id, ..)| *id);
        let empty = rows.into_iter().filter(|(_, _, is_empty)| *is_empty);
        Ok((empty.map(|(id, name, _)| (id, name)).collect(), next))
    }

    /// The locations of a shard that a row names. To be asked after the objects were listed: a row
    /// is there before its object.
    pub(crate) async fn owned_in(&self, shard: u8) -> Result<Owned, Error> {
        let end = shard.checked_add(1).map_or("g".to_owned(), |next| format!("{next:02x}"));
        let statement = "SELECT location FROM blobs WHERE location >= $1 AND location < $2
             UNION SELECT location FROM uploads WHERE location >= $1 AND location < $2
             UNION SELECT location FROM dead_objects WHERE location >= $1 AND location < $2";
        let found = self.reader().await?.all(statement, (format!("{shard:02x}"), end)).await?;
        Ok(Owned(found.into_iter().collect()))
    }
}

/// The locations of a shard that a row names; every other object there is an orphan.
#[derive(Debug)]
pub(crate) struct Owned(HashSet<String>);

impl Owned {
    /// Those that no row names.
    pub(crate) fn orphans(&self, mut objects: Vec<Location>) -> Vec<Location> {
        objects.retain(|location| !self.0.contains(location.as_str()));
        objects
    }
}

impl Database {
    /// Takes blobs out of repositories, the first ones, as many as one transaction may hold: each if
    /// it is still stale, and deletes it if that was the last one to hold it. Tells of each what became
    /// of it.
    pub(crate) async fn collect_links(
        &self,
        stale: Vec<Stale>,
        cutoff: UnixSeconds,
        now: UnixSeconds,
    ) -> Result<Vec<Collected>, Error> {
        self.write(stale, move |tx, stale| {
            Box::pin(async move {
                let (mut collected, began) = (Vec::with_capacity(stale.len()), Instant::now());
                for stale in stale {
                    if !collected.is_empty() && began.elapsed() >= STEP_TIME {
                        break;
                    }
                    collected.push(tx.collect_link(stale, cutoff, now).await?);
                }
                Ok(collected)
            })
        })
        .await
    }

    /// Deletes a blob that no repository holds. `None` when one does.
    pub(crate) async fn collect_unlinked(
        &self,
        digest: &Digest,
        now: UnixSeconds,
    ) -> Result<Option<Dead>, Error> {
        self.write(digest.clone(), move |tx, digest| Box::pin(tx.delete_unlinked(digest, now)))
            .await
    }

    /// Deletes manifests that were found unreached, the first ones, as many as one transaction may
    /// hold: each if still nothing above it keeps it. Gives what each named that went, and `None`
    /// for what stays.
    pub(crate) async fn collect_manifests(
        &self,
        stale: Vec<Stale>,
        cutoff: UnixSeconds,
    ) -> Result<Vec<Option<Vec<String>>>, Error> {
        self.write(stale, move |tx, stale| {
            Box::pin(async move {
                let (mut outcomes, mut rows) = (Vec::with_capacity(stale.len()), 0);
                let began = Instant::now();
                for stale in stale {
                    let is_late = !outcomes.is_empty() && began.elapsed() >= STEP_TIME;
                    if is_late || rows >= ROWS_MAX.into() {
                        break;
                    }
                    rows += tx.references_of(stale.id, stale.digest.as_str()).await?;
                    let below = tx.named_by(stale.id, stale.digest.as_str()).await?;
                    let gone = tx.collect_manifest(stale, cutoff).await?;
                    outcomes.push(gone.then_some(below));
                }
                Ok(outcomes)
            })
        })
        .await
    }

    /// Deletes a repository, if it still holds nothing.
    pub(crate) async fn delete_empty(&self, id: RepositoryId, name: String) -> Result<bool, Error> {
        self.write(name, move |tx, name| {
            Box::pin(async move {
                let repository = "repositories WHERE id = $1 AND name = $2";
                if !tx.hold(repository, (id, name), Lock::UpdateSkipLocked).await? {
                    return Ok(false);
                }
                let statement = "DELETE FROM repositories WHERE id = $1 AND name = $2
                     AND NOT EXISTS (SELECT 1 FROM manifests m WHERE m.repository = $1)
                     AND NOT EXISTS (SELECT 1 FROM repository_blobs l WHERE l.repository = $1)";
                Ok(tx.run(statement, (id, name)).await? > 0)
            })
        })
        .await
    }
}

impl Transaction<'_> {
    pub(super) async fn collect_link(
        &mut self,
        Stale { id, repository, digest, .. }: &Stale,
        cutoff: UnixSeconds,
        due: UnixSeconds,
    ) -> Result<Collected, Error> {
        let link = "repository_blobs
             WHERE repository = $1 AND digest = $2 AND touched < $3";
        if !self.hold(link, (id, digest, cutoff), Lock::UpdateSkipLocked).await? {
            return Ok(Collected::Kept);
        }
        let statement = format!(
            "DELETE FROM repository_blobs AS l
             WHERE l.repository = $1 AND l.digest = $2 AND {IS_STALE}"
        );
        let gone = self.run(AssertSqlSafe(statement), (id, digest, cutoff)).await?;
        if gone == 0 {
            return Ok(Collected::Kept);
        }
        self.invalidate(Key::Blob(repository.clone(), digest.clone()));
        let freed = self.delete_unlinked(digest, due).await?;
        Ok(freed.map_or(Collected::Unlinked, Collected::Freed))
    }

    async fn delete_unlinked(
        &mut self,
        digest: &Digest,
        due: UnixSeconds,
    ) -> Result<Option<Dead>, Error> {
        let blob = "blobs WHERE digest = $1";
        if !self.hold(blob, digest, Lock::UpdateSkipLocked).await? {
            return Ok(None);
        }
        let statement = "DELETE FROM blobs WHERE digest = $1
             AND NOT EXISTS (SELECT 1 FROM repository_blobs l WHERE l.digest = $1)
             RETURNING location, size";
        let Some((location, size)) = self.optional(statement, digest).await? else {
            return Ok(None);
        };
        let dead = Dead::of(location, size);
        self.bury(&dead, due).await?;
        Ok(Some(dead))
    }

    /// What may keep a manifest: a tag, an index, a subject, a touch since `cutoff`.
    async fn collect_manifest(
        &mut self,
        Stale { id, repository, digest, .. }: &Stale,
        cutoff: UnixSeconds,
    ) -> Result<bool, Error> {
        let manifest = "manifests WHERE repository = $1 AND digest = $2";
        if !self.hold(manifest, (id, digest), Lock::UpdateSkipLocked).await? {
            return Ok(false);
        }
        let statement = "DELETE FROM manifests AS m WHERE m.repository = $1 AND m.digest = $2
             AND EXISTS (SELECT 1 FROM manifest_touches k WHERE k.repository = m.repository
                         AND k.digest = m.digest AND k.touched < $3)
             AND NOT EXISTS (SELECT 1 FROM tags t
                             WHERE t.repository = m.repository AND t.digest = m.digest)
             AND NOT EXISTS (SELECT 1 FROM manifest_references r
                             WHERE r.repository = m.repository AND r.digest = m.digest
                             AND r.kind = 'child')
             AND NOT EXISTS (SELECT 1 FROM manifests s
                             WHERE s.repository = m.repository AND s.digest = m.subject)";
        let gone = self.run(statement, (id, digest, cutoff)).await?;
        self.invalidate(Key::Manifest(repository.clone(), digest.clone()));
        Ok(gone > 0)
    }
}
