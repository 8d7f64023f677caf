//! A store that only pretends to delete: what a dry run works on.

use std::sync::Arc;

use async_trait::async_trait;

use super::{Described, Error, Listing, Location, ObjectStream, ObjectWriter, Store};

/// Reads go through; a deletion is believed to have happened.
#[derive(Debug, Clone)]
pub struct Untouched(pub Arc<dyn Store>);

#[async_trait]
impl Store for Untouched {
    async fn length(&self, location: &Location) -> Result<u64, Error> {
        self.0.length(location).await
    }

    async fn read(
        &self,
        location: &Location,
        start: u64,
        length: u64,
    ) -> Result<ObjectStream, Error> {
        self.0.read(location, start, length).await
    }

    async fn write(
        &self,
        location: &Location,
        offset: u64,
    ) -> Result<Box<dyn ObjectWriter>, Error> {
        self.0.write(location, offset).await
    }

    async fn sync_entry(&self, location: &Location) -> Result<(), Error> {
        self.0.sync_entry(location).await
    }

    async fn delete(&self, _: &Location) -> Result<(), Error> {
        Ok(())
    }

    async fn describe(&self, location: &Location) -> Result<Described, Error> {
        self.0.describe(location).await
    }

    async fn list(&self, shard: u8) -> Result<Listing, Error> {
        self.0.list(shard).await
    }

    async fn free_bytes(&self) -> Result<u64, Error> {
        self.0.free_bytes().await
    }

    async fn check(&self) -> Result<(), Error> {
        self.0.check().await
    }
}
