//! Lists, a page at a time and always in byte order: tags, the catalog, referrers.

use berth_shared::{digest::Digest, name::RepositoryName, rights::Rights, tag::Tag};

use super::{Error, Registry, reach::Reach};
use crate::{authz::Permit, metadata::manifest::Referrer};

/// The largest page, and the page that who asks for none gets.
pub(crate) const PAGE_MAX: u32 = 1000;

/// How many names are read at once while the catalog is filtered.
const CATALOG_BATCH: u32 = 1000;

/// Which part of a list is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PageRequest {
    /// How many items at most.
    pub(crate) limit: u32,
    /// Only what comes behind this; empty for the beginning.
    pub(crate) last: String,
}

/// A part of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Page<T> {
    pub(crate) items: Vec<T>,
    /// Whether more follows.
    pub(crate) more: bool,
}

impl<T> Page<T> {
    /// Cuts a list that was read one item longer than wanted.
    fn cut(mut items: Vec<T>, limit: u32) -> Self {
        let limit = limit as usize;
        let more = limit > 0 && items.len() > limit;
        items.truncate(limit);
        Self { items, more }
    }
}

impl Registry {
    /// The repository's tags (end-8).
    pub(crate) async fn tags(
        &self,
        permit: &Permit,
        page: &PageRequest,
    ) -> Result<Page<Tag>, Error> {
        let repository = permit.repository();
        let tags = self.database.tags_after(repository, &page.last, page.limit + 1).await?;
        if tags.is_empty() && !self.database.repository_exists(repository).await? {
            return Err(Error::NameUnknown);
        }
        Ok(Page::cut(tags, page.limit))
    }

    /// The manifests whose subject is `subject` (end-12), of an artifact type if one is given.
    pub(crate) async fn referrers(
        &self,
        permit: &Permit,
        subject: &Digest,
        artifact_type: Option<&str>,
        page: &PageRequest,
    ) -> Result<Page<Referrer>, Error> {
        let referrers = self
            .database
            .referrers_after(
                permit.repository(),
                subject,
                artifact_type,
                &page.last,
                page.limit + 1,
            )
            .await?;
        Ok(Page::cut(referrers, page.limit))
    }

    /// The repositories that whoever holds `rights` may pull.
    pub(crate) async fn catalog(
        &self,
        rights: &Rights,
        page: &PageRequest,
    ) -> Result<Page<RepositoryName>, Error> {
        let reach = Reach::of(rights, self.clock.now());
        let wanted = page.limit as usize + 1;
        let mut found: Vec<RepositoryName> = Vec::new();
        let mut last = page.last.clone();
        while found.len() < wanted {
            let spans = reach.spans_behind(&last);
            let batch = self.database.repositories_within(&spans, CATALOG_BATCH).await?;
            let Some(end) = batch.last() else { break };
            last = end.name.to_string();
            let visible =
                batch.into_iter().filter(|it| it.has_manifests && reach.contains(&it.name));
            found.extend(visible.map(|it| it.name).take(wanted - found.len()));
        }
        Ok(Page::cut(found, page.limit))
    }
}
