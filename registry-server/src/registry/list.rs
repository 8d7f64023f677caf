//! Lists, read a page at a time and always in byte order: tags, the catalog, referrers.

use std::sync::Arc;

use berth_shared::{
    claimant::Claimant,
    digest::Digest,
    name::RepositoryName,
    rights::Rights,
    serve::budget::{Budget, Reservation, Share},
    tag::Tag,
};
use futures_util::{StreamExt, stream, stream::BoxStream};

use super::{Error, backend::Backend, matching::Matching};
use crate::{
    authz::permit::Permit,
    metadata::{
        Asker, Turns,
        referrer::{Answer, Referrer, Wanted},
    },
    reach::Reach,
};

/// The largest page, and the page of the catalog and of referrers for who asks for none.
pub(crate) const PAGE_MAX: u32 = 1000;

/// How many tags are measured at once, for a list that is longer than a page.
const EXTENT: u32 = 10_000;

/// How much text of tags one answer has at most, for who asks for no page.
pub(crate) const TAGS_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// What a tag takes in the text of a list besides its name: quotes and a comma.
const TAG_FRAME_BYTES: u64 = 3;

/// How many names are read at once at most while the catalog is filtered.
const CATALOG_BATCH_MAX: u32 = 1000;

/// The room of a page of names while it is put together: a thousand of 255 bytes, as names and as
/// text.
const NAMES_BYTES: usize = 512 * 1024;

/// The room that a page of referrers is tried with: most have no more.
const REFERRERS_BYTES: usize = 64 * 1024;

/// How many pages of more are read at once: each connection that reads keeps room for the largest
/// that it has read. A client has one, and all strangers together have two.
const LARGE_PAGES_MAX: usize = 4;

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

/// Reads the tags of a repository while a client takes them.
struct TagReader {
    lists: Lists,
    repository: RepositoryName,
    claimant: Arc<Claimant>,
    /// The tag that the answer ends with, if that is not the last one.
    end: Option<String>,
}

impl TagReader {
    async fn page_behind(&self, last: String) -> Result<Page<Tag>, Error> {
        // The answer has begun: what it waits for is not broken off.
        let room = self.lists.memory.share(Arc::clone(&self.claimant)).wait_for(NAMES_BYTES).await;
        let tags =
            self.lists.backend.database.tags_after(&self.repository, &last, PAGE_MAX + 1).await?;
        let mut page = Page::cut(tags, PAGE_MAX, room);
        if let Some(end) = &self.end
            && page.items.last().is_some_and(|last| last.as_str() >= end.as_str())
        {
            page.items.retain(|tag| tag.as_str() <= end.as_str());
            page.next = None;
        }
        Ok(page)
    }
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

/// All tags of a repository, or as many as one answer has.
pub(crate) struct AllTags {
    pub(crate) first: Page<Tag>,
    /// The pages behind it, each read when it is asked for.
    pub(crate) rest: BoxStream<'static, Result<Page<Tag>, Error>>,
    /// Behind what the next answer begins, if one cannot have all.
    pub(crate) next: Option<String>,
}

/// The lists; clones share their turns.
#[derive(Debug, Clone)]
pub(crate) struct Lists {
    backend: Backend,
    memory: Budget,
    /// Held while a large page of a list is read.
    large_pages: Turns,
    matching: Matching,
}

impl Lists {
    pub(super) fn new(backend: Backend, memory: Budget, matching: Matching) -> Self {
        let large_pages = Turns::new("LARGE_PAGES_MAX", LARGE_PAGES_MAX);
        Self { backend, memory, large_pages, matching }
    }

    /// The repository's tags behind `last` (end-8), for who asks for no page: the specification has
    /// fewer than all only where one is asked for. As text they have about `bytes_max` bytes at most.
    pub(crate) async fn all_tags(
        &self,
        permit: &Permit,
        last: &str,
        claimant: &Arc<Claimant>,
        bytes_max: u64,
    ) -> Result<AllTags, Error> {
        let page = PageRequest { limit: PAGE_MAX, last: last.to_owned() };
        let first = self.tags(permit, &page, &self.memory.share(Arc::clone(claimant))).await?;
        let Some(begin) = first.next.clone() else {
            return Ok(AllTags { first, rest: stream::empty().boxed(), next: None });
        };
        let next = self.end_of_tags(permit.repository(), &begin, bytes_max).await?;
        let reader = TagReader {
            lists: self.clone(),
            repository: permit.repository().clone(),
            claimant: Arc::clone(claimant),
            end: next.clone(),
        };
        let rest = stream::try_unfold((reader, Some(begin)), |(reader, last)| async move {
            let Some(last) = last else { return Ok(None) };
            // Whoever takes the answer asks for it, long after the request was read.
            let asker = Asker::Client(Arc::clone(&reader.claimant));
            let page = asker.scope(reader.page_behind(last)).await?;
            let next = page.next.clone();
            Ok(Some((page, (reader, next))))
        });
        Ok(AllTags { first, rest: rest.boxed(), next })
    }

    /// The tag that one answer ends with, if it cannot have all behind `last`.
    async fn end_of_tags(
        &self,
        repository: &RepositoryName,
        last: &str,
        bytes_max: u64,
    ) -> Result<Option<String>, Error> {
        let (mut last, mut bytes) = (last.to_owned(), 0);
        while let Some(extent) =
            self.backend.database.tags_extent(repository, &last, EXTENT).await?
        {
            bytes += extent.bytes + extent.count * TAG_FRAME_BYTES;
            if bytes > bytes_max {
                return Ok(Some(last));
            }
            last = extent.last;
        }
        Ok(None)
    }

    /// A page of the repository's tags (end-8).
    pub(crate) async fn tags(
        &self,
        permit: &Permit,
        page: &PageRequest,
        memory: &Share,
    ) -> Result<Page<Tag>, Error> {
        let repository = permit.repository();
        let room = memory.reserve(NAMES_BYTES).await?;
        let tags = self.backend.database.tags_after(repository, &page.last, page.limit + 1).await?;
        if tags.is_empty() && !self.backend.database.repository_exists(repository).await? {
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
            let _turn = match bytes_max {
                REFERRERS_BYTES => None,
                _ => self.large_pages.take().await?,
            };
            match self.backend.database.referrers(wanted, bytes_max).await? {
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
        let reach = Reach::of(rights, self.backend.clock.now());
        let wanted = page.limit as usize + 1;
        let mut found: Vec<RepositoryName> = Vec::new();
        let mut last = page.last.clone();
        // Whoever sees all of it needs no more than a page is; who sees little, many.
        let mut batch_size = (page.limit + 1).min(CATALOG_BATCH_MAX);
        while found.len() < wanted {
            let spans = reach.spans_behind(&last);
            let batch = self.backend.database.repositories_within(&spans, batch_size).await?;
            batch_size = CATALOG_BATCH_MAX;
            let Some(end) = batch.last() else { break };
            last = end.name.to_string();
            let listed = batch.into_iter().filter(|it| it.has_manifests).map(|it| it.name);
            let visible = self.matching.within(&reach, listed.collect(), |name| name).await?;
            found.extend(visible.into_iter().take(wanted - found.len()));
        }
        Ok(Page::cut(found, page.limit, room))
    }
}
