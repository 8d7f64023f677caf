//! Deleting in steps: short transactions, after each of which everything holds. A tag goes before
//! its manifest, what names before what is named, and a manifest before the blobs that it names. So
//! a deletion that breaks off is gone on with by asking for it again.
//!
//! Names and digests come as text here: what cannot be read goes too, and no cache holds it.

use berth_shared::{
    database::{Statements, row},
    digest::Digest,
    name::RepositoryName,
};

use super::{
    Database, Error, Transaction,
    key::Key,
    list::List,
    lock::Lock,
    repository::{self, RepositoryId},
};

/// Rows that are deleted in one transaction: what a push may have to wait for. A manifest and what
/// it names are not divided.
pub(crate) const ROWS_MAX: u32 = 500;

/// What a repository holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) id: RepositoryId,
    pub(crate) rows: u64,
}

/// What a step has done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) manifests: u64,
    pub(crate) tags: u64,
    /// Manifests that are still to go: because there was no room for them in this step, or because
    /// one that went named them.
    pub(crate) left: Vec<String>,
}

row!(Held { id, rows });

impl Database {
    /// What a repository holds: its tags, manifests and blobs, counted. `None` when there is no such
    /// repository.
    pub(crate) async fn held(&self, name: &RepositoryName) -> Result<Option<Held>, Error> {
        let statement = "SELECT id, (SELECT COUNT(*) FROM tags t WHERE t.repository = r.id)
             + (SELECT COUNT(*) FROM manifests m WHERE m.repository = r.id)
             + (SELECT COUNT(*) FROM repository_blobs l WHERE l.repository = r.id) AS rows
             FROM repositories r WHERE r.name = $1";
        self.reader().await?.optional(statement, name).await
    }

    /// Up to `limit` manifests behind `last`, and whether another manifest names each.
    pub(crate) async fn manifests_and_whether_named(
        &self,
        repository: RepositoryId,
        last: &str,
        limit: u32,
    ) -> Result<Vec<(String, bool)>, Error> {
        let statement = "SELECT m.digest, EXISTS (
                 SELECT 1 FROM manifest_references r
                 WHERE r.repository = m.repository AND r.digest = m.digest
                 AND r.kind IN ('child', 'subject'))
             FROM manifests m WHERE m.repository = $1 AND m.digest > $2
             ORDER BY m.digest LIMIT $3";
        self.reader().await?.all(statement, (repository, last, limit)).await
    }

    /// Deletes the manifest if it has few tags, else some of them: then `left` names it. `None` when
    /// it is not there.
    pub(crate) async fn delete_manifest(
        &self,
        name: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<Step>, Error> {
        let given = (name.clone(), digest.clone());
        self.write(given, |tx, (name, digest)| {
            Box::pin(async move {
                let Some(id) = repository::find(tx.connection(), name).await? else {
                    return Ok(None);
                };
                if !tx.hold_manifest(id, digest.as_str()).await? {
                    return Ok(None);
                }
                let mut step = Step::default();
                let is_there = tx.delete_one(id, name, digest.as_str(), &mut step).await?;
                Ok(is_there.then_some(step))
            })
        })
        .await
    }

    /// Deletes manifests that no other manifest names, from the end of the list, until the step is
    /// full; those that one names are not looked at again before that one has gone.
    pub(crate) async fn delete_unnamed(
        &self,
        id: RepositoryId,
        name: &RepositoryName,
        digests: Vec<String>,
    ) -> Result<Step, Error> {
        self.write((name.clone(), digests), move |tx, (name, digests)| {
            Box::pin(async move {
                let (mut step, mut rows, mut digests) = (Step::default(), 0, digests.clone());
                while rows < ROWS_MAX.into() && step.left.is_empty() {
                    let Some(digest) = digests.pop() else { break };
                    rows += 1;
                    if !tx.hold_manifest(id, &digest).await? || tx.is_named(id, &digest).await? {
                        continue;
                    }
                    rows += tx.references_of(id, &digest).await?;
                    let below = tx.named_by(id, &digest).await?;
                    let tags = step.tags;
                    tx.delete_one(id, name, &digest, &mut step).await?;
                    rows += step.tags - tags;
                    if step.left.is_empty() {
                        digests.extend(below);
                    }
                }
                digests.append(&mut step.left);
                step.left = digests;
                Ok(step)
            })
        })
        .await
    }

    /// Deletes some of the repository's tags; gives how many: fewer than `ROWS_MAX` are the last.
    pub(crate) async fn delete_tags(
        &self,
        id: RepositoryId,
        name: &RepositoryName,
    ) -> Result<u64, Error> {
        self.write(name.clone(), move |tx, name| {
            Box::pin(async move {
                let statement = "DELETE FROM tags WHERE repository = $1 AND name IN (
                         SELECT name FROM tags WHERE repository = $1 ORDER BY name LIMIT $2)
                     RETURNING name";
                let tags: Vec<String> = tx.all(statement, (id, ROWS_MAX)).await?;
                tx.invalidate_tags(name, &tags);
                Ok(tags.len() as u64)
            })
        })
        .await
    }

    /// Takes those of the next blobs behind `last` out of the repository that no manifest there
    /// names. Gives how many were looked at, and where to go on; `None` behind the last.
    pub(crate) async fn unlink_after(
        &self,
        id: RepositoryId,
        name: &RepositoryName,
        last: String,
    ) -> Result<(u64, Option<String>), Error> {
        self.write((name.clone(), last), move |tx, (name, last)| {
            Box::pin(async move {
                let statement = "SELECT digest FROM repository_blobs
                     WHERE repository = $1 AND digest > $2 ORDER BY digest LIMIT $3";
                let page = tx.locking(statement, Lock::Update);
                let mut page: Vec<String> = tx.all(page, (id, last, ROWS_MAX)).await?;
                let (looked_at, listed) =
                    (page.len() as u64, List::of(page.iter().map(|it| [it.as_str()])));
                let Some(end) = page.pop() else { return Ok((0, None)) };
                // Of those that are held, and of none that has come in between.
                let statement = "DELETE FROM repository_blobs AS l WHERE l.repository = $1
                     AND l.digest IN (SELECT value ->> 0 FROM json_each($2)) AND NOT EXISTS (
                         SELECT 1 FROM manifest_references m
                         WHERE m.repository = l.repository AND m.digest = l.digest
                         AND m.kind <> 'subject')
                     RETURNING digest";
                let gone: Vec<String> = tx.all(statement, (id, listed)).await?;
                for digest in gone.iter().filter_map(|digest| digest.parse().ok()) {
                    tx.invalidate(Key::Blob(name.clone(), digest));
                }
                Ok((looked_at, Some(end)))
            })
        })
        .await
    }
}

impl Transaction<'_> {
    /// Nobody comes to need it while it is deleted. `false` when it is not there.
    async fn hold_manifest(&mut self, id: RepositoryId, digest: &str) -> Result<bool, Error> {
        let statement = "manifests WHERE repository = $1 AND digest = $2";
        self.hold(statement, (id, digest), Lock::Update).await
    }

    /// Deletes one manifest with its tags. `false` when it is not there.
    async fn delete_one(
        &mut self,
        id: RepositoryId,
        name: &RepositoryName,
        digest: &str,
        step: &mut Step,
    ) -> Result<bool, Error> {
        let statement = "DELETE FROM tags WHERE repository = $1 AND digest = $2 AND name IN (
                 SELECT name FROM tags WHERE repository = $1 AND digest = $2 LIMIT $3)
             RETURNING name";
        let tags: Vec<String> = self.all(statement, (id, digest, ROWS_MAX)).await?;
        self.invalidate_tags(name, &tags);
        step.tags += tags.len() as u64;
        if tags.len() as u64 >= ROWS_MAX.into() {
            step.left.push(digest.to_owned());
            return Ok(true);
        }
        let statement = "DELETE FROM manifests WHERE repository = $1 AND digest = $2";
        let gone = self.run(statement, (id, digest)).await?;
        if let Ok(digest) = digest.parse() {
            self.invalidate(Key::Manifest(name.clone(), digest));
        }
        step.manifests += gone;
        Ok(gone > 0)
    }

    /// How many things a manifest names: rows that go with it.
    pub(super) async fn references_of(
        &mut self,
        repository: RepositoryId,
        digest: &str,
    ) -> Result<u64, Error> {
        let statement =
            "SELECT COUNT(*) FROM manifest_references WHERE repository = $1 AND manifest = $2";
        self.one(statement, (repository, digest)).await
    }

    /// The manifests that one names.
    pub(super) async fn named_by(
        &mut self,
        id: RepositoryId,
        digest: &str,
    ) -> Result<Vec<String>, Error> {
        let statement = "SELECT digest FROM manifest_references
             WHERE repository = $1 AND manifest = $2 AND kind IN ('child', 'subject')";
        self.all(statement, (id, digest)).await
    }

    /// Whether a manifest names the one.
    async fn is_named(&mut self, id: RepositoryId, digest: &str) -> Result<bool, Error> {
        let statement = "SELECT EXISTS (SELECT 1 FROM manifest_references
             WHERE repository = $1 AND digest = $2 AND kind IN ('child', 'subject'))";
        self.one(statement, (id, digest)).await
    }

    fn invalidate_tags(&mut self, name: &RepositoryName, tags: &[String]) {
        for tag in tags.iter().filter_map(|tag| tag.parse().ok()) {
            self.invalidate(Key::Tag(name.clone(), tag));
        }
    }
}
