//! What is stored and what it takes: repositories, and the tags of one. It only reads.

use std::path::Path;

use berth_shared::{
    clock::{UnixSeconds, as_rfc3339},
    name::RepositoryName,
};
use serde::Serialize;

use super::Error;
use crate::metadata::{
    Database,
    column::unsigned,
    inventory::{RepositoryRow, TagRow},
};

/// A repository and what it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Holding {
    /// Its name.
    pub repository: String,
    /// How many tags it has.
    pub tags: u64,
    /// How many manifests it has.
    pub manifests: u64,
    /// How many of those no tag leads to, not through an index either.
    pub untagged: u64,
    /// The bytes of blobs that only this repository holds.
    pub own_bytes: u64,
    /// The bytes of blobs that other repositories hold too.
    pub shared_bytes: u64,
}

/// A tag and what it leads to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TaggedImage {
    /// The tag.
    pub tag: String,
    /// The digest of the manifest.
    pub digest: String,
    /// The bytes of the blobs that the image needs, through indexes too, each counted once.
    pub bytes: u64,
    /// When the tag was last pushed.
    #[serde(serialize_with = "as_rfc3339")]
    pub pushed: UnixSeconds,
}

/// Reads what is stored, beside a running server or without one.
#[derive(Debug)]
pub struct Inventory(Database);

impl Inventory {
    /// Opens the database in the data directory.
    ///
    /// # Errors
    /// When it cannot be read, or is of another version.
    pub async fn open(data: &Path) -> Result<Self, Error> {
        Ok(Self(Database::open_beside(&data.join("registry.db")).await?))
    }

    /// All repositories, in byte order.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn repositories(&self) -> Result<Vec<Holding>, Error> {
        let rows = self.0.repository_rows().await?;
        rows.into_iter().map(Holding::try_from).collect()
    }

    /// One repository.
    ///
    /// # Errors
    /// [`Error::NameUnknown`] when there is none of that name, and when the database fails.
    pub async fn repository(&self, name: &RepositoryName) -> Result<Holding, Error> {
        let row = self.0.repository_row(name).await?.ok_or(Error::NameUnknown)?;
        row.try_into()
    }

    /// The tags of a repository, in byte order.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn tags(&self, name: &RepositoryName) -> Result<Vec<TaggedImage>, Error> {
        let rows = self.0.tag_rows(name).await?;
        rows.into_iter().map(TaggedImage::try_from).collect()
    }

    /// The bytes of all blobs that several repositories hold, each counted once.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn shared_bytes(&self) -> Result<u64, Error> {
        Ok(self.0.shared_bytes().await?)
    }
}

impl TryFrom<RepositoryRow> for Holding {
    type Error = Error;

    fn try_from(row: RepositoryRow) -> Result<Self, Error> {
        Ok(Self {
            repository: row.name,
            tags: unsigned(row.tags)?,
            manifests: unsigned(row.manifests)?,
            untagged: unsigned(row.untagged)?,
            own_bytes: unsigned(row.own)?,
            shared_bytes: unsigned(row.shared)?,
        })
    }
}

impl TryFrom<TagRow> for TaggedImage {
    type Error = Error;

    fn try_from(row: TagRow) -> Result<Self, Error> {
        let bytes = unsigned(row.size)?;
        Ok(Self { tag: row.name, digest: row.digest, bytes, pushed: row.updated })
    }
}
