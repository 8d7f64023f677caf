//! When a blob or a manifest was last put here or asked for: what collection goes by.
//!
//! For manifests this is kept in rows of its own. Touching happens to many manifests at once, and must cost as
//! little for large ones as for small ones.

use berth_shared::{clock::UnixSeconds, database::Statements, digest::Digest, tag::Tag};
use sqlx::AssertSqlSafe;

use super::{Database, Error, Transaction, key::Key, lock::Lock, repository::RepositoryId};

/// Manifests that one push touches at most, those first that it names itself: as many as one
/// manifest may name, and as many again below those. An index of indexes can reach any number of
/// others, and every push waits meanwhile. What lies beyond is kept alive all the same by what
/// names it; its time just does not begin anew.
const TOUCHED_MAX: u32 = 2 * 4096;

impl Database {
    /// Records that a client was told that the repository holds the blob or the manifest. `false`
    /// when it does not any more.
    pub(crate) async fn touch(&self, key: Key, now: UnixSeconds) -> Result<bool, Error> {
        self.write(key, move |tx, key| {
            Box::pin(async move {
                let (table, repository, digest) = match key {
                    Key::Blob(repository, digest) => ("repository_blobs", repository, digest),
                    Key::Manifest(repository, digest) => ("manifest_touches", repository, digest),
                    Key::BlobEverywhere | Key::Tag(..) => return Ok(false),
                };
                // The row of its touch is another one than what collection holds.
                let manifest = "manifests WHERE digest = $2
                     AND repository = (SELECT id FROM repositories WHERE name = $1)";
                if let Key::Manifest(..) = key {
                    tx.hold(manifest, (repository, digest), Lock::KeyShare).await?;
                }
                let statement = format!(
                    "UPDATE {table} SET touched = $3 WHERE digest = $2
                     AND repository = (SELECT id FROM repositories WHERE name = $1)"
                );
                let touched = tx.run(AssertSqlSafe(statement), (repository, digest, now)).await?;
                tx.invalidate(key.clone());
                Ok(touched > 0)
            })
        })
        .await
    }
}

impl Transaction<'_> {
    /// Touches a manifest that is stored, and what it keeps alive: its children and subjects, and
    /// theirs.
    pub(super) async fn touch_named(
        &mut self,
        repository: RepositoryId,
        digest: &Digest,
        now: UnixSeconds,
    ) -> Result<(), Error> {
        // CROSS JOIN, since SQLite would look at each reference of the repository for each of them.
        // UNION ALL, since UNION would throw away what it has seen without counting it for LIMIT:
        // 4,096 indexes of the same 4,096 children are 16 million rows. No more rows are made than are
        // asked for behind it: PostgreSQL takes no LIMIT within.
        let statement = "WITH RECURSIVE named (digest) AS (
                 SELECT digest FROM manifest_touches WHERE repository = $1 AND digest = $2
                 UNION ALL
                 SELECT r.digest FROM named n CROSS JOIN manifest_references r
                 WHERE r.repository = $1 AND r.manifest = n.digest
                 AND r.kind IN ('child', 'subject')
             )
             UPDATE manifest_touches SET touched = $3
             WHERE repository = $1 AND digest IN (SELECT digest FROM named LIMIT $4)";
        self.run(statement, (repository, digest, now, TOUCHED_MAX)).await.map(drop)
    }

    /// Touches the manifest that is about to lose the tag.
    pub(super) async fn touch_tagged(
        &mut self,
        repository: RepositoryId,
        tag: &Tag,
        now: UnixSeconds,
    ) -> Result<(), Error> {
        let statement = "UPDATE manifest_touches SET touched = $3 WHERE repository = $1
             AND digest = (SELECT digest FROM tags WHERE repository = $1 AND name = $2)";
        self.run(statement, (repository, tag, now)).await.map(drop)
    }
}
