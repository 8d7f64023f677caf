//! A store whose N-th call fails, as disks do: a write may have written a part.

use std::{io, ops::Range, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;

use super::Faults;
use crate::storage::{
    Dead, Described, Draft, Error, Finished, Listing, Location, ObjectStream, ObjectWriter, Shares,
    Store,
    room::{Room, RoomShare},
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
    fn is_local(&self) -> bool {
        self.store.is_local()
    }

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

    fn is_sealed(&self, draft: &Draft) -> bool {
        self.store.is_sealed(draft)
    }

    fn reserve(&self, draft: &Draft) -> Result<Option<Draft>, Error> {
        self.store.reserve(draft)
    }

    async fn open(&self, draft: Draft) -> Result<Box<dyn ObjectWriter>, Error> {
        let location = draft.location.clone();
        self.step(&location)?;
        let (writer, faults) = (self.store.open(draft).await?, self.faults.clone());
        Ok(Box::new(FaultyWriter { writer, location, faults }))
    }

    async fn cut_back(&self, draft: &Draft) -> Result<(), Error> {
        self.step(&draft.location)?;
        self.store.cut_back(draft).await
    }

    async fn put(
        &self,
        location: &Location,
        length: u64,
        bytes: ObjectStream,
    ) -> Result<(), Error> {
        self.step(location)?;
        self.store.put(location, length, bytes).await
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

    fn room(&self) -> Option<&Room> {
        self.store.room()
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
    async fn append(&mut self, mut chunks: Vec<Bytes>) -> Result<Option<Draft>, Error> {
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

    fn may_rest(&mut self, may_stay_open: bool, room: Option<&RoomShare>) -> bool {
        self.writer.may_rest(may_stay_open, room)
    }

    async fn checkpoint(self: Box<Self>) -> Result<Draft, Error> {
        if self.faults.step() { self.writer.checkpoint().await } else { Err(self.failure()) }
    }

    async fn seal(&mut self) -> Result<Option<Draft>, Error> {
        if self.faults.step() { self.writer.seal().await } else { Err(self.failure()) }
    }

    async fn finish(self: Box<Self>) -> Result<Finished, Error> {
        if self.faults.step() { self.writer.finish().await } else { Err(self.failure()) }
    }
}
