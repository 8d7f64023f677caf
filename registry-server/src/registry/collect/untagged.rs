//! Manifests that no tag, no index and no subject names: what names goes before what is named.

use std::time::Instant;

use berth_shared::{clock::UnixSeconds, digest::Digest, name::RepositoryName};

use super::{Collection, PAGE, STEP};
use crate::{
    metadata::{collection::Stale, deletion::ROWS_MAX, repository::RepositoryId},
    registry::{Error, event::Kind},
};

impl Collection {
    /// Deletes, in every repository, the manifests that nothing above keeps since `cutoff`.
    pub(super) async fn untagged(&mut self, cutoff: UnixSeconds) -> Result<(), Error> {
        let mut last = RepositoryId::default();
        loop {
            let page = self.registry.database.repository_ids(last, PAGE).await?;
            let Some(end) = page.last() else { return Ok(()) };
            last = *end;
            for id in page {
                self.untagged_in(id, cutoff).await?;
            }
        }
    }

    async fn untagged_in(&mut self, id: RepositoryId, cutoff: UnixSeconds) -> Result<(), Error> {
        let mut left = self.registry.database.unreached_manifests(id, cutoff).await?;
        // What is named goes after what names it, so a chain takes as many rounds as it has links.
        loop {
            let before = left.len();
            left = self.delete_manifests(left, cutoff).await?;
            if left.is_empty() || left.len() == before {
                return Ok(());
            }
        }
    }

    /// Deletes those that nothing above keeps any more, and gives back the others.
    async fn delete_manifests(
        &mut self,
        manifests: Vec<Stale>,
        cutoff: UnixSeconds,
    ) -> Result<Vec<Stale>, Error> {
        let mut kept = Vec::new();
        for step in manifests.chunks(STEP) {
            let mut readable = self.readable(step).await?;
            while !readable.is_empty() {
                let gone = self.delete_some(&readable, cutoff).await?;
                let rest = readable.split_off(gone.len());
                for ((stale, repository, digest), gone) in readable.into_iter().zip(gone) {
                    if !gone {
                        kept.push(stale);
                        continue;
                    }
                    self.done.manifests += 1;
                    let why = "no tag, index or subject names it";
                    let name = digest.as_str();
                    let bytes = u64::try_from(stale.size).unwrap_or(0);
                    self.say(Kind::Manifest, Some(repository.as_str()), name, bytes, why).await?;
                }
                readable = rest;
            }
        }
        Ok(kept)
    }

    /// Tries the first ones, as many as one transaction may hold, and gives which of them went.
    async fn delete_some(
        &mut self,
        manifests: &[(Stale, RepositoryName, Digest)],
        cutoff: UnixSeconds,
    ) -> Result<Vec<bool>, Error> {
        let work = manifests.to_vec();
        self.may_go_on()?;
        let started = Instant::now();
        let gone = self.registry.database.write(move |tx| {
            Box::pin(async move {
                let (mut gone, mut rows) = (Vec::with_capacity(work.len()), 0);
                for (stale, repository, digest) in &work {
                    if rows >= ROWS_MAX.into() {
                        break;
                    }
                    rows += tx.references_of(stale.id, digest.as_str()).await?;
                    gone.push(tx.collect_manifest(repository, stale, digest, cutoff).await?);
                }
                Ok::<_, Error>(gone)
            })
        });
        let gone = gone.await?;
        self.step_took(started);
        Ok(gone)
    }
}
