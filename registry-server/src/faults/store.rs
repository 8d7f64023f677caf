//! A store whose N-th call fails, as disks do: a write may have written a part.

use std::io;

use async_trait::async_trait;
use bytes::Bytes;

use super::Faults;
use crate::storage::{
    Described, Error, Listing, Location, ObjectStream, ObjectWriter, Shares, Store, disk::DiskStore,
};

#[derive(Debug)]
pub(super) struct FaultyStore {
    store: DiskStore,
    faults: Faults,
}

impl FaultyStore {
    pub(super) fn new(store: DiskStore, faults: Faults) -> Self {
        Self { store, faults }
    }

    fn step(&self, location: &Location) -> Result<(), Error> {
        if self.faults.step() { Ok(()) } else { Err(failure(location)) }
    }
}

fn failure(location: &Location) -> Error {
    let source = io::Error::other("injected");
    Error::Io { operation: "failing at", location: location.clone(), source }
}

fn nowhere() -> Location {
    "0".repeat(32).parse().unwrap()
}

#[async_trait]
impl Store for FaultyStore {
    async fn length(&self, location: &Location) -> Result<u64, Error> {
        self.step(location)?;
        self.store.length(location).await
    }

    async fn read(
        &self,
        location: &Location,
        start: u64,
        length: u64,
    ) -> Result<ObjectStream, Error> {
        self.step(location)?;
        self.store.read(location, start, length).await
    }

    async fn read_for(
        &self,
        shares: &Shares,
        location: &Location,
        start: u64,
        length: u64,
    ) -> Result<ObjectStream, Error> {
        self.step(location)?;
        self.store.read_for(shares, location, start, length).await
    }

    async fn write(
        &self,
        location: &Location,
        offset: u64,
    ) -> Result<Box<dyn ObjectWriter>, Error> {
        self.step(location)?;
        let writer = self.store.write(location, offset).await?;
        let (location, faults) = (location.clone(), self.faults.clone());
        Ok(Box::new(FaultyWriter { writer, location, faults }))
    }

    async fn sync_entry(&self, location: &Location) -> Result<(), Error> {
        self.step(location)?;
        self.store.sync_entry(location).await
    }

    async fn delete(&self, location: &Location) -> Result<(), Error> {
        self.step(location)?;
        self.store.delete(location).await
    }

    async fn describe(&self, location: &Location) -> Result<Described, Error> {
        self.step(location)?;
        self.store.describe(location).await
    }

    async fn list(&self, shard: u8) -> Result<Listing, Error> {
        // One shard stands for all: they are listed alike.
        if shard == 0 {
            self.step(&nowhere())?;
        }
        self.store.list(shard).await
    }

    async fn free_bytes(&self) -> Result<u64, Error> {
        self.step(&nowhere())?;
        self.store.free_bytes().await
    }

    async fn check(&self) -> Result<(), Error> {
        self.store.check().await
    }
}

struct FaultyWriter {
    writer: Box<dyn ObjectWriter>,
    location: Location,
    faults: Faults,
}

#[async_trait]
impl ObjectWriter for FaultyWriter {
    async fn append(&mut self, mut chunks: Vec<Bytes>) -> Result<(), Error> {
        if self.faults.step() {
            return self.writer.append(chunks).await;
        }
        if let Some(first) = chunks.first_mut() {
            first.truncate(first.len() / 2);
        }
        chunks.truncate(1);
        self.writer.append(chunks).await?;
        Err(failure(&self.location))
    }

    async fn sync(&mut self) -> Result<(), Error> {
        if self.faults.step() { self.writer.sync().await } else { Err(failure(&self.location)) }
    }
}
