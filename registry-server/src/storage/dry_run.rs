//! A store that only pretends to delete: what a dry run works on.

use std::{collections::HashSet, sync::Arc};

use async_trait::async_trait;
use parking_lot::Mutex;

use super::{
    Dead, Described, Draft, Error, Listing, Location, ObjectStream, ObjectWriter, Shares, Store,
};

/// Reads go through; what is deleted stays, and is not listed any more.
#[derive(Debug)]
pub struct DryRun {
    store: Arc<dyn Store>,
    deleted: Mutex<HashSet<Location>>,
}

impl DryRun {
    /// Pretends on top of `store`.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, deleted: Mutex::default() }
    }
}

#[async_trait]
impl Store for DryRun {
    async fn length(&self, location: &Location) -> Result<u64, Error> {
        self.store.length(location).await
    }

    async fn read(
        &self,
        location: &Location,
        start: u64,
        length: u64,
    ) -> Result<ObjectStream, Error> {
        self.store.read(location, start, length).await
    }

    async fn read_for(
        &self,
        shares: &Shares,
        location: &Location,
        start: u64,
        length: u64,
    ) -> Result<ObjectStream, Error> {
        self.store.read_for(shares, location, start, length).await
    }

    async fn open(&self, draft: Draft, claim: u64) -> Result<Box<dyn ObjectWriter>, Error> {
        self.store.open(draft, claim).await
    }

    async fn cut_back(&self, draft: &Draft) -> Result<(), Error> {
        self.store.cut_back(draft).await
    }

    fn reads_unfinished(&self) -> bool {
        self.store.reads_unfinished()
    }

    async fn delete(&self, dead: &[Dead]) -> Vec<Result<(), Error>> {
        self.deleted.lock().extend(dead.iter().map(|it| it.location.clone()));
        dead.iter().map(|_| Ok(())).collect()
    }

    async fn describe(&self, location: &Location) -> Result<Described, Error> {
        self.store.describe(location).await
    }

    async fn list(&self, shard: u8) -> Result<Listing, Error> {
        let mut listing = self.store.list(shard).await?;
        let deleted = self.deleted.lock();
        listing.objects.retain(|location| !deleted.contains(location));
        Ok(listing)
    }

    async fn free_bytes(&self) -> Result<Option<u64>, Error> {
        self.store.free_bytes().await
    }

    async fn check(&self) -> Result<(), Error> {
        self.store.check().await
    }
}
