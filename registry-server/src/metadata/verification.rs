//! What verification asks and records: which blobs to look at, and what was found.

use berth_shared::{
    clock::UnixSeconds,
    database::{Statements, row},
    digest::Digest,
};

use super::{Database, Error, Rows, Transaction, blob::Blob, key::Key, repository::RepositoryId};
use crate::storage::Location;

/// A place in the order in which blobs were last checked, or only in that of their digests.
pub(crate) type Checked = (UnixSeconds, String);

/// A manifest as it lies in the database.
#[derive(Debug)]
pub(crate) struct StoredManifest {
    pub(crate) id: RepositoryId,
    pub(crate) repository: String,
    pub(crate) digest: Digest,
}

/// A tag, and how many of the manifests that its index names are not there.
#[derive(Debug)]
pub(crate) struct TagLack {
    pub(crate) id: RepositoryId,
    pub(crate) repository: String,
    pub(crate) tag: String,
    pub(crate) lacking: u32,
    /// One of those.
    pub(crate) example: Option<String>,
}

row!(StoredManifest { id, repository, digest });
row!(TagLack { id, repository, tag, lacking, example });

impl Database {
    /// Up to `limit` blobs behind `last`, in byte order of their digests.
    pub(crate) async fn blobs_after(
        &self,
        last: &Checked,
        limit: u32,
    ) -> Result<Rows<Checked, Blob>, Error> {
        let statement = "SELECT checked, digest, size, location, damaged FROM blobs
             WHERE digest > $1 ORDER BY digest LIMIT $2";
        self.reader().await?.all(statement, (&last.1, limit)).await
    }

    /// Up to `limit` blobs behind `last` that were last checked before `cutoff`, those first that
    /// wait longest.
    pub(crate) async fn blobs_unchecked_since(
        &self,
        cutoff: UnixSeconds,
        last: &Checked,
        limit: u32,
    ) -> Result<Rows<Checked, Blob>, Error> {
        let statement = "SELECT checked, digest, size, location, damaged FROM blobs
             WHERE checked < $1 AND (checked, digest) > ($2, $3) ORDER BY checked, digest LIMIT $4";
        self.reader().await?.all(statement, (cutoff, last.0, &last.1, limit)).await
    }

    /// Up to `limit` images that need the blob, or the manifest of that repository, as
    /// `repository:tag`, or `repository@digest` where no tag leads there.
    pub(crate) async fn images_with(
        &self,
        digest: &Digest,
        manifest_of: Option<RepositoryId>,
        limit: u32,
    ) -> Result<Vec<String>, Error> {
        let statement = "WITH RECURSIVE above (repository, digest) AS (
                 SELECT m.repository, m.manifest
                 FROM repository_blobs l CROSS JOIN manifest_references m
                 WHERE l.digest = $1 AND m.repository = l.repository AND m.digest = l.digest
                 AND m.kind <> 'subject'
                 UNION
                 SELECT repository, digest FROM manifests WHERE repository = $3 AND digest = $1
                 UNION
                 SELECT m.repository, m.manifest FROM above a CROSS JOIN manifest_references m
                 WHERE m.repository = a.repository AND m.digest = a.digest AND m.kind = 'child'
             )
             SELECT r.name || ':' || t.name
             FROM above a CROSS JOIN repositories r CROSS JOIN tags t
             WHERE r.id = a.repository AND t.repository = a.repository AND t.digest = a.digest
             UNION
             SELECT r.name || '@' || a.digest FROM above a CROSS JOIN repositories r
             WHERE r.id = a.repository AND NOT EXISTS (SELECT 1 FROM tags t
                               WHERE t.repository = a.repository AND t.digest = a.digest)
             AND NOT EXISTS (SELECT 1 FROM manifest_references m
                             WHERE m.repository = a.repository AND m.digest = a.digest
                             AND m.kind = 'child')
             ORDER BY 1 LIMIT $2";
        self.reader().await?.all(statement, (digest, limit, manifest_of)).await
    }

    /// Up to `limit` manifests behind `last`.
    pub(crate) async fn manifests_after(
        &self,
        last: &(RepositoryId, String),
        limit: u32,
    ) -> Result<Rows<(RepositoryId, String), StoredManifest>, Error> {
        let statement = "SELECT r.id, t.digest, r.name AS repository
             FROM manifest_touches t CROSS JOIN repositories r
             WHERE (t.repository, t.digest) > ($1, $2) AND r.id = t.repository
             ORDER BY t.repository, t.digest LIMIT $3";
        self.reader().await?.all(statement, (last.0, &last.1, limit)).await
    }

    /// The bytes of a manifest, whatever they are; `None` when it has gone meanwhile.
    pub(crate) async fn stored_bytes(
        &self,
        manifest: &StoredManifest,
    ) -> Result<Option<Vec<u8>>, Error> {
        let statement = "SELECT bytes FROM manifests WHERE repository = $1 AND digest = $2";
        self.reader().await?.optional(statement, (manifest.id, &manifest.digest)).await
    }

    /// The next `limit` tags of all repositories behind `last`, with what their indexes lack.
    pub(crate) async fn lacks_after(
        &self,
        last: &(RepositoryId, String),
        limit: u32,
    ) -> Result<Vec<TagLack>, Error> {
        let statement = "SELECT p.repository AS id, r.name AS repository, p.name AS tag,
             (SELECT COUNT(*) FROM manifest_references m
              WHERE m.repository = p.repository AND m.manifest = p.digest AND m.kind = 'child'
              AND NOT EXISTS (SELECT 1 FROM manifests c
                              WHERE c.repository = m.repository AND c.digest = m.digest)) AS lacking,
             (SELECT MIN(m.digest) FROM manifest_references m
              WHERE m.repository = p.repository AND m.manifest = p.digest AND m.kind = 'child'
              AND NOT EXISTS (SELECT 1 FROM manifests c
                              WHERE c.repository = m.repository AND c.digest = m.digest)) AS example
             FROM (SELECT repository, name, digest FROM tags WHERE (repository, name) > ($1, $2)
                   ORDER BY repository, name LIMIT $3) p
             CROSS JOIN repositories r WHERE r.id = p.repository";
        self.reader().await?.all(statement, (last.0, &last.1, limit)).await
    }

    /// Records that the objects at the blobs' locations were found sound.
    pub(crate) async fn record_sound(
        &self,
        blobs: Vec<Blob>,
        now: UnixSeconds,
    ) -> Result<(), Error> {
        self.write(blobs, move |tx, blobs| {
            Box::pin(async move {
                for blob in blobs {
                    tx.record_check(blob, false, now).await?;
                }
                Ok(())
            })
        })
        .await
    }

    /// Records that the object at the blob's location was found damaged, so that it is not served and
    /// a push of the same digest takes its place. `false` when the blob lies elsewhere by now.
    pub(crate) async fn record_damage(&self, blob: &Blob, now: UnixSeconds) -> Result<bool, Error> {
        self.write(blob.clone(), move |tx, blob| Box::pin(tx.record_check(blob, true, now))).await
    }

    /// Serves a damaged blob again, out of the object at `location`, which was found sound. `false`
    /// when the blob lies elsewhere by now.
    pub(crate) async fn repair(
        &self,
        blob: &Blob,
        location: &Location,
        now: UnixSeconds,
    ) -> Result<bool, Error> {
        let given = (blob.clone(), location.clone());
        self.write(given, move |tx, (blob, location)| {
            Box::pin(async move {
                let statement = "UPDATE blobs
                     SET location = $3, size = $4, checked = $5, damaged = NULL
                     WHERE digest = $1 AND location = $2";
                let values = (&blob.digest, &blob.location, location, blob.size, now);
                let found = tx.run(statement, values).await?;
                tx.invalidate(Key::BlobEverywhere);
                Ok(found > 0)
            })
        })
        .await
    }
}

impl Transaction<'_> {
    async fn record_check(
        &mut self,
        blob: &Blob,
        damaged: bool,
        now: UnixSeconds,
    ) -> Result<bool, Error> {
        let statement = "UPDATE blobs SET checked = $3,
             damaged = CASE WHEN $4 THEN COALESCE(damaged, $3) ELSE damaged END
             WHERE digest = $1 AND location = $2";
        let found = self.run(statement, (&blob.digest, &blob.location, now, damaged)).await?;
        if damaged {
            self.invalidate(Key::BlobEverywhere);
        }
        Ok(found > 0)
    }
}
