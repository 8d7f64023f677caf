//! A store whose N-th call fails, as disks do: a write may have written a part.

use std::{io, ops::Range, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;

use super::Faults;
use crate::storage::{
    Dead, Described, Draft, Error, Listing, Location, ObjectStream, ObjectWriter, Shares, Store,
};

#[derive(Debug)]
pub(super) struct FaultyStore {
    store: Arc<dyn Store>,
    faults: Faults,
}

impl FaultyStore {
    pub(super) fn new(store: Arc<dyn Store>, faults: Faults) -> Self {
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
        shares: Option<&Shares>,
        location: &Location,
        part: Range<u64>,
    ) -> Result<ObjectStream, Error> {
        self.step(location)?;
        self.store.read(shares, location, part).await
    }

    async fn open(&self, draft: Draft, claim: u64) -> Result<Box<dyn ObjectWriter>, Error> {
        let location = draft.location.clone();
        self.step(&location)?;
        let (writer, faults) = (self.store.open(draft, claim).await?, self.faults.clone());
        Ok(Box::new(FaultyWriter { writer, location, faults }))
    }

    async fn cut_back(&self, draft: &Draft) -> Result<(), Error> {
        self.step(&draft.location)?;
        self.store.cut_back(draft).await
    }

    async fn delete(&self, dead: &[Dead]) -> Vec<Result<(), Error>> {
        let mut results = Vec::new();
        for one in dead {
            let deleted = self.step(&one.location);
            results.extend(match deleted {
                Ok(()) => self.store.delete(std::slice::from_ref(one)).await,
                Err(error) => vec![Err(error)],
            });
        }
        results
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

    async fn free_bytes(&self) -> Result<Option<u64>, Error> {
        self.step(&nowhere())?;
        self.store.free_bytes().await
    }
}

struct FaultyWriter {
    writer: Box<dyn ObjectWriter>,
    location: Location,
    faults: Faults,
}

impl FaultyWriter {
    fn failure(&self) -> Error {
        failure(&self.location)
    }
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
        Err(self.failure())
    }

    async fn checkpoint(&mut self) -> Result<Draft, Error> {
        if self.faults.step() { self.writer.checkpoint().await } else { Err(self.failure()) }
    }

    async fn seal(&mut self) -> Result<Option<Draft>, Error> {
        if self.faults.step() { self.writer.seal().await } else { Err(self.failure()) }
    }

    async fn finish(self: Box<Self>) -> Result<Location, Error> {
        if self.faults.step() { self.writer.finish().await } else { Err(self.failure()) }
    }
}
