//! Manifests that no tag, no index and no subject names: what names goes before what is named.

use std::{collections::HashMap, time::Instant};

use berth_shared::clock::UnixSeconds;

use super::{Collection, PAGE, STEP, unreadable};
use crate::{
    metadata::{collection::Stale, repository::RepositoryId},
    registry::{Error, event::Kind},
};

/// Manifests of a repository that are known to be unreached, and in memory, at once.
const AT_ONCE: u32 = 50_000;

/// How many times a repository with more of them is gone through: what is named from elsewhere in
/// the list waits for the next time, and blobs do not wait for chains that somebody made long.
const PASSES_MAX: usize = 10;

impl Collection {
    /// Deletes, in every repository, the manifests that nothing above keeps since `cutoff`.
    pub(super) async fn untagged(&mut self, cutoff: UnixSeconds) -> Result<(), Error> {
        let mut last = RepositoryId::default();
        loop {
            let page = self.database.repository_ids(last, PAGE).await?;
            let Some(end) = page.last() else { return Ok(()) };
            last = *end;
            for id in page {
                self.untagged_in(id, cutoff).await?;
            }
        }
    }

    async fn untagged_in(&mut self, id: RepositoryId, cutoff: UnixSeconds) -> Result<(), Error> {
        for _ in 0..PASSES_MAX {
            let (before, mut last) = (self.done.manifests, String::new());
            let mut pages = 0;
            loop {
                let page = self.database.unreached_manifests(id, cutoff, &last, AT_ONCE);
                let page = page.await?;
                let Some(((_, end, _), _)) = page.last() else { break };
                last.clone_from(end);
                pages += 1;
                let page = self.readable(page, unreadable).await?;
                self.delete_manifests(page, cutoff).await?;
            }
            if pages <= 1 || self.done.manifests == before {
                break;
            }
        }
        Ok(())
    }

    /// Deletes those that nothing above keeps any more. All are tried once, and again only what
    /// waited for something that went.
    async fn delete_manifests(
        &mut self,
        manifests: Vec<Stale>,
        cutoff: UnixSeconds,
    ) -> Result<(), Error> {
        let mut turn: Vec<String> =
            manifests.iter().rev().map(|it| it.digest.to_string()).collect();
        let mut left: HashMap<String, Stale> =
            manifests.into_iter().map(|stale| (stale.digest.to_string(), stale)).collect();
        while !turn.is_empty() {
            let step = turn.split_off(turn.len().saturating_sub(STEP));
            let step: Vec<Stale> = step.iter().rev().filter_map(|it| left.remove(it)).collect();
            if step.is_empty() {
                continue;
            }
            self.may_go_on()?;
            let started = Instant::now();
            // As many as one transaction may hold: what each named that went, and `None` for what
            // stays.
            let outcomes = self.database.collect_manifests(step.clone(), cutoff).await?;
            self.step_took(started);
            let (tried, untried) = step.split_at(outcomes.len());
            for stale in untried.iter().rev() {
                turn.push(stale.digest.to_string());
                left.insert(stale.digest.to_string(), stale.clone());
            }
            for (stale, below) in tried.iter().zip(outcomes) {
                let Some(below) = below else {
                    left.insert(stale.digest.to_string(), stale.clone());
                    continue;
                };
                turn.extend(below.into_iter().filter(|it| left.contains_key(it)));
                self.referrers(stale, &left, &mut turn).await?;
                self.done.manifests += 1;
                let why = "no tag, index or subject names it";
                let bytes = u64::try_from(stale.size).unwrap_or(0);
                let (repository, name) = (Some(stale.repository.as_str()), stale.digest.as_str());
                self.say(Kind::Manifest, repository, name, bytes, why).await?;
            }
        }
        Ok(())
    }

    /// Adds those of `left` to `turn` that refer to a subject.
    async fn referrers(
        &self,
        subject: &Stale,
        left: &HashMap<String, Stale>,
        turn: &mut Vec<String>,
    ) -> Result<(), Error> {
        let (database, mut last) = (&self.database, String::new());
        loop {
            let page =
                database.referrers_by_id(subject.id, subject.digest.as_str(), &last, PAGE).await?;
            let Some(end) = page.last() else { return Ok(()) };
            last.clone_from(end);
            turn.extend(page.into_iter().filter(|it| left.contains_key(it)));
        }
    }
}
