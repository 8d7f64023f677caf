//! A reference names a manifest within a repository: by tag or by digest.

use std::{fmt, str::FromStr};

use crate::{digest::Digest, tag::Tag};

/// What stands behind `/manifests/`: a tag or a digest.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reference {
    /// By digest: always the same bytes.
    Digest(Digest),
    /// By tag: whatever the tag points to now.
    Tag(Tag),
}

/// The text is neither a tag nor a digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidReference {
    /// It holds a colon, so a digest was meant.
    #[error("the reference holds a colon but is no digest that Berth knows")]
    Digest,
    /// It was meant as a tag.
    #[error("the reference is neither a tag nor a digest")]
    Tag,
}

impl FromStr for Reference {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.contains(':') {
            text.parse().map(Self::Digest).map_err(|_| InvalidReference::Digest)
        } else {
            text.parse().map(Self::Tag).map_err(|_| InvalidReference::Tag)
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Digest(digest) => digest.fmt(f),
            Self::Tag(tag) => tag.fmt(f),
        }
    }
}
