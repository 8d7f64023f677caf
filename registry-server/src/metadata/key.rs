//! What is found in the cache, and what a commit drops from it.

use berth_shared::{digest::Digest, name::RepositoryName, tag::Tag};

/// What an entry is found by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    Blob(RepositoryName, Digest),
    /// A blob wherever it is linked, which any number of repositories may do. Nothing is found by
    /// this; everything is dropped for it, since blobs come to harm and are repaired rarely.
    BlobEverywhere,
    Manifest(RepositoryName, Digest),
    Tag(RepositoryName, Tag),
}
