//! Deleting: a tag, a manifest, or a repository with all it holds.
//!
//! What has many rows goes in steps, each a short transaction, so that pushes have their turn in
//! between. Whoever deletes again goes on where a deletion broke off.

use berth_shared::{digest::Digest, name::RepositoryName, reference::Reference};
use serde::{Deserialize, Serialize};

use super::{Error, backend::Backend, event::Events};
use crate::metadata::deletion::{Held, ROWS_MAX, Step};

/// How many indexes above a manifest are looked at when a client deletes it, for a line in the log.
const ABOVE_MAX: u32 = 1000;

/// How many tags are told that a deletion breaks.
const TAGS_TOLD_MAX: u32 = 20;

/// Manifests that are looked at in one query.
const PAGE: u32 = 1000;

/// What was deleted on request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deleted {
    /// What: `repository`, `repository:tag`, or `repository@digest`.
    pub what: String,
    /// How many manifests went.
    pub manifests: u64,
    /// How many tags went.
    pub tags: u64,
    /// The manifest of a tag that went, which stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<Digest>,
}

/// Deletes on request; clones share it.
#[derive(Debug, Clone)]
pub struct Deletion {
    backend: Backend,
}

impl Deletion {
    pub(super) fn new(backend: Backend) -> Self {
        Self { backend }
    }

    /// Deletes a tag, a manifest with its tags, or, without a reference, all manifests and blobs of
    /// a repository, and tells `events` how far it has come. Collection gives the space back. A
    /// manifest that tagged indexes name goes by `force` alone.
    ///
    /// # Errors
    /// When it is not there or needed, the registry is read-only, the database fails, and when nobody
    /// listens any more.
    pub async fn delete(
        &self,
        repository: &RepositoryName,
        reference: Option<&Reference>,
        force: bool,
        events: &Events,
    ) -> Result<Deleted, Error> {
        self.backend.refuse_when_read_only()?;
        let (what, manifests, tags, left) = match reference {
            None => {
                let held =
                    self.backend.database.held(repository).await?.ok_or(Error::NameUnknown)?;
                let (backend, name, done) = (&self.backend, repository, Step::default());
                let mut emptying = Emptying { backend, name, held, events, done, rows: 0 };
                emptying.tags().await?;
                emptying.manifests().await?;
                emptying.blobs().await?;
                let Step { manifests, tags, .. } = emptying.done;
                (repository.to_string(), manifests, tags, None)
            }
            Some(Reference::Tag(tag)) => {
                let now = self.backend.clock.now();
                let digest = self.backend.database.delete_tag(repository, tag, now).await?;
                let Some(digest) = digest else {
                    return Err(Error::TagUnknown(repository.clone(), tag.clone()));
                };
                (format!("{repository}:{tag}"), 0, 1, Some(digest))
            }
            Some(Reference::Digest(digest)) => {
                let broken = self.tags_above(repository, digest, u32::MAX).await?;
                if !broken.is_empty() && !force {
                    return Err(Error::ManifestNeeded(broken));
                }
                let tags = self.delete_with_tags(repository, digest).await?;
                (format!("{repository}@{digest}"), 1, tags, None)
            }
        };
        Ok(Deleted { what, manifests, tags, left })
    }

    /// Deletes a manifest as a client asks for it, who may break indexes: the log tells which.
    pub(super) async fn delete_for_client(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<(), Error> {
        let broken = self.tags_above(repository, digest, ABOVE_MAX).await?;
        self.delete_with_tags(repository, digest).await?;
        if !broken.is_empty() {
            tracing::warn!(%repository, %digest, ?broken, "a manifest is deleted that tagged indexes name");
        }
        Ok(())
    }

    /// Tags whose indexes name the manifest, as `repository:tag`.
    async fn tags_above(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        above_max: u32,
    ) -> Result<Vec<String>, Error> {
        let tags =
            self.backend.database.tags_above(repository, digest, TAGS_TOLD_MAX, above_max).await?;
        Ok(tags.into_iter().map(|tag| format!("{repository}:{tag}")).collect())
    }

    /// Deletes a manifest, behind all tags that lead to it. Gives how many tags those were.
    pub(super) async fn delete_with_tags(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<u64, Error> {
        let mut tags = 0;
        loop {
            match self.backend.database.delete_manifest(repository, digest).await? {
                Some(step) => {
                    tags += step.tags;
                    if step.left.is_empty() {
                        return Ok(tags);
                    }
                }
                // Somebody else has done the rest.
                None if tags > 0 => return Ok(tags),
                None => return Err(Error::ManifestUnknown),
            }
            self.backend.refuse_when_read_only()?;
        }
    }
}

/// A repository on its way out. What is pushed to it meanwhile may stay.
struct Emptying<'e> {
    backend: &'e Backend,
    name: &'e RepositoryName,
    held: Held,
    events: &'e Events,
    done: Step,
    rows: u64,
}

impl Emptying<'_> {
    async fn tags(&mut self) -> Result<(), Error> {
        let database = &self.backend.database;
        loop {
            let gone = database.delete_tags(self.held.id, self.name).await?;
            self.done.tags += gone;
            self.progress(gone).await?;
            if gone < ROWS_MAX.into() {
                return Ok(());
            }
        }
    }

    /// Those that no other names, and below them what they named.
    async fn manifests(&mut self) -> Result<(), Error> {
        let (database, mut last) = (&self.backend.database, String::new());
        loop {
            let page = database.manifests_and_whether_named(self.held.id, &last, PAGE).await?;
            let Some((end, _)) = page.last() else { return Ok(()) };
            last.clone_from(end);
            let unnamed = page.into_iter().filter(|(_, is_named)| !is_named);
            let mut left: Vec<String> = unnamed.map(|(digest, _)| digest).collect();
            while !left.is_empty() {
                let step = database.delete_unnamed(self.held.id, self.name, left).await?;
                self.done.manifests += step.manifests;
                self.done.tags += step.tags;
                self.progress(step.manifests + step.tags).await?;
                left = step.left;
            }
        }
    }

    async fn blobs(&mut self) -> Result<(), Error> {
        let (database, mut last) = (&self.backend.database, String::new());
        loop {
            let (rows, end) = database.unlink_after(self.held.id, self.name, last).await?;
            self.progress(rows).await?;
            let Some(end) = end else { return Ok(()) };
            last = end;
        }
    }

    /// Tells how far it has come, and looks whether it may go on.
    async fn progress(&mut self, rows: u64) -> Result<(), Error> {
        if rows == 0 {
            return Ok(());
        }
        self.rows += rows;
        let total = self.held.rows.max(self.rows);
        self.events.progress((self.rows, total), (0, 0)).await?;
        self.backend.refuse_when_read_only()
    }
}
