//! What is stored and what it takes: repositories, and the tags of one. It only reads.

use std::path::Path;

use berth_shared::name::RepositoryName;

use super::Error;
use crate::metadata::Database;
pub use crate::metadata::inventory::{Holding, TaggedImage};

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
        Ok(self.0.holdings().await?)
    }

    /// One repository.
    ///
    /// # Errors
    /// [`Error::NameUnknown`] when there is none of that name, and when the database fails.
    pub async fn repository(&self, name: &RepositoryName) -> Result<Holding, Error> {
        self.0.holding(name).await?.ok_or(Error::NameUnknown)
    }

    /// The tags of a repository, in byte order.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn tags(&self, name: &RepositoryName) -> Result<Vec<TaggedImage>, Error> {
        Ok(self.0.images(name).await?)
    }

    /// The bytes of all blobs that several repositories hold, each counted once.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn shared_bytes(&self) -> Result<u64, Error> {
        Ok(self.0.shared_bytes().await?)
    }
}
