//! Query parameters, read leniently as pairs: clients repeat keys and send ones of their own.

use std::borrow::Cow;

use berth_shared::{
    digest::{Algorithm, Digest},
    error::Code,
    name::RepositoryName,
    tag::Tag,
};

use super::error::Error;
use crate::registry::list::{PAGE_MAX, PageRequest};

/// How many tags one manifest may be pushed under at once.
const TAGS_MAX: usize = 64;

/// How many pairs of a query are read: no request needs as many, and a query of 64 KiB can have
/// thirty thousand empty ones.
const PAIRS_MAX: usize = 256;

/// A blob that is to be linked from elsewhere, instead of an upload (end-11).
#[derive(Debug)]
pub(super) struct Mount {
    pub(super) digest: Digest,
    /// The repository that is named as the source.
    pub(super) from: Option<RepositoryName>,
}

/// The pairs of a query string, decoded.
#[derive(Debug)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn parse(query: Option<&str>) -> Self {
        let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
        let owned =
            |(name, value): (Cow<'_, str>, Cow<'_, str>)| (name.into_owned(), value.into_owned());
        Self(pairs.take(PAIRS_MAX).map(owned).collect())
    }

    /// The first value of a key.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// The mount that is asked for. One that cannot be understood cannot be made, and what cannot be
    /// mounted is uploaded.
    pub(super) fn mount(&self) -> Option<Mount> {
        let digest = self.get("mount")?.parse().ok()?;
        let from = self.get("from").map(str::parse).transpose().ok()?;
        Some(Mount { digest, from })
    }

    /// The source of a mount: what the client should ask a token for.
    pub(super) fn mount_source(&self) -> Option<RepositoryName> {
        self.mount()?.from
    }

    /// `artifactType`. Many clients write the plus of a media type as it is, which reads as a blank,
    /// and no media type holds one; nor a NUL, which would not get into a database's text.
    pub(super) fn artifact_type(&self) -> Option<String> {
        let wanted = self.get("artifactType").filter(|wanted| !wanted.is_empty());
        wanted.map(|wanted| wanted.replace(' ', "+").replace('\0', " "))
    }

    /// `n`: how many items a page may have, if one is asked for.
    pub(super) fn limit(&self) -> Result<Option<u32>, Error> {
        match self.get("n") {
            None | Some("") => Ok(None),
            Some(n) if n.bytes().all(|b| b.is_ascii_digit()) => {
                Ok(Some(n.parse().unwrap_or(PAGE_MAX).min(PAGE_MAX)))
            }
            Some(_) => {
                Err(Error::BadRequest(Code::PaginationNumberInvalid, "n must be a number of items"))
            }
        }
    }

    /// `last`: behind what a list begins.
    pub(super) fn last(&self) -> &str {
        // No name has a NUL, so that none lies between what stands before it and the whole; and
        // PostgreSQL's text has none.
        self.get("last").and_then(|last| last.split('\0').next()).unwrap_or_default()
    }

    /// `n` and `last`.
    pub(super) fn page(&self) -> Result<PageRequest, Error> {
        let limit = self.limit()?.unwrap_or(PAGE_MAX);
        Ok(PageRequest { limit, last: self.last().to_owned() })
    }

    /// `tag`, as often as it stands there.
    pub(super) fn tags(&self) -> Result<Vec<Tag>, Error> {
        let tags = self.0.iter().filter(|(name, _)| name == "tag");
        let tags: Vec<Tag> = tags
            .map(|(_, tag)| tag.parse())
            .collect::<Result<_, _>>()
            .map_err(|_| Error::BadRequest(Code::ManifestInvalid, "a tag parameter is no tag"))?;
        if tags.len() > TAGS_MAX {
            return Err(Error::BadRequest(
                Code::ManifestInvalid,
                "too many tag parameters: 64 at most",
            ));
        }
        Ok(tags)
    }

    /// `digest-algorithm`: what the content of an upload will be addressed by.
    pub(super) fn digest_algorithm(&self) -> Result<Algorithm, Error> {
        match self.get("digest-algorithm") {
            None => Ok(Algorithm::Sha256),
            Some(name) => name.parse().map_err(|_| {
                Error::BadRequest(Code::DigestInvalid, "digest-algorithm must be sha256 or sha512")
            }),
        }
    }
}
