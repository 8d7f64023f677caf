//! Lists, a page at a time and always in byte order: tags, the catalog, referrers.

use berth_shared::{
    digest::Digest,
    name::RepositoryName,
    rights::Rights,
    serve::budget::{Reservation, Share},
    tag::Tag,
};

use super::{Error, Registry, reach::Reach};
use crate::{
    authz::Permit,
    metadata::referrer::{Answer, Referrer, Wanted},
};

/// The largest page, and the page that who asks for none gets.
pub(crate) const PAGE_MAX: u32 = 1000;

/// How many names are read at once while the catalog is filtered.
const CATALOG_BATCH: u32 = 1000;

/// The room of a page of names while it is put together: a thousand of 255 bytes, as names and as
/// text.
const NAMES_BYTES: usize = 512 * 1024;

/// The room that a page of referrers is tried with: most have no more.
const REFERRERS_BYTES: usize = 64 * 1024;

/// How often a page of referrers is in memory while it is put together: in the database's hands, as
/// rows and as text.
pub(crate) const REFERRERS_COPIES: usize = 3;

/// Which part of a list is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PageRequest {
    /// How many items at most.
    pub(crate) limit: u32,
    /// Only what comes behind this; empty for the beginning.
    pub(crate) last: String,
}

/// A part of a list.
#[derive(Debug)]
pub(crate) struct Page<T> {
    pub(crate) items: Vec<T>,
    /// Behind what the next page begins, if there is one.
    pub(crate) next: Option<String>,
    /// For the page as text too.
    pub(crate) room: Reservation,
}

impl<T: ToString> Page<T> {
    /// Cuts a list that was read one item longer than wanted.
    fn cut(mut items: Vec<T>, limit: u32, room: Reservation) -> Self {
        let limit = limit as usize;
        let more = limit > 0 && items.len() > limit;
        items.truncate(limit);
        let next = items.last().filter(|_| more).map(ToString::to_string);
        Self { items, next, room }
    }
}

impl Registry {
    /// The repository's tags (end-8).
    pub(crate) async fn tags(
        &self,
        permit: &Permit,
        page: &PageRequest,
        memory: &Share,
    ) -> Result<Page<Tag>, Error> {
        let repository = permit.repository();
        let room = memory.reserve(NAMES_BYTES).await?;
        let tags = self.database.tags_after(repository, &page.last, page.limit + 1).await?;
        if tags.is_empty() && !self.database.repository_exists(repository).await? {
            return Err(Error::NameUnknown);
        }
        Ok(Page::cut(tags, page.limit, room))
    }

    /// The manifests whose subject is `subject` (end-12), of an artifact type if one is given. A page
    /// has four MiB at most.
    pub(crate) async fn referrers(
        &self,
        permit: &Permit,
        subject: &Digest,
        artifact_type: Option<&str>,
        page: &PageRequest,
        memory: &Share,
    ) -> Result<Page<Referrer>, Error> {
        let wanted = Wanted {
            repository: permit.repository(),
            subject,
            artifact_type,
            last: &page.last,
            limit: page.limit,
        };
        let mut bytes_max = REFERRERS_BYTES;
        loop {
            let room = memory.reserve(bytes_max.saturating_mul(REFERRERS_COPIES)).await?;
            // Each reader keeps room for the largest that it has read: one at a time is enough.
            let _turn = match bytes_max {
                REFERRERS_BYTES => None,
                _ => Some(self.large_pages.lock().await),
            };
            match self.database.referrers(wanted, bytes_max).await? {
                Answer::Page { referrers: items, next } => return Ok(Page { items, next, room }),
                // By the next look it may have grown.
                Answer::TooLarge(bytes) => bytes_max = bytes,
            }
        }
    }

    /// The repositories that whoever holds `rights` may pull. Until there is a page of them it goes
    /// on, a bounded part at a time: a page that ended before would have to name where, and that is
    /// a repository which its reader may not know of.
    pub(crate) async fn catalog(
        &self,
        rights: &Rights,
        page: &PageRequest,
        memory: &Share,
    ) -> Result<Page<RepositoryName>, Error> {
        let room = memory.reserve(NAMES_BYTES).await?;
        let reach = Reach::of(rights, self.clock.now());
        let wanted = page.limit as usize + 1;
        let mut found: Vec<RepositoryName> = Vec::new();
        let mut last = page.last.clone();
        while found.len() < wanted {
            let spans = reach.spans_behind(&last);
            let batch = self.database.repositories_within(&spans, CATALOG_BATCH).await?;
            let Some(end) = batch.last() else { break };
            last = end.name.to_string();
            let listed = batch.into_iter().filter(|it| it.has_manifests).map(|it| it.name);
            let visible = self.matching.within(&reach, listed.collect(), |name| name).await?;
            found.extend(visible.into_iter().take(wanted - found.len()));
        }
        Ok(Page::cut(found, page.limit, room))
    }
}
