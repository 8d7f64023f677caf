//! A store for tests that is as unlike a disk as one can be: it is nobody's alone, keeps what was
//! received as parts, which it names in the draft, cannot read them, does not know how much room there
//! is, and makes an object of them only when what it needs for that has been recorded.

use std::{fs, ops::Range, path::Path, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;

use super::{
    Dead, Described, Draft, Error, Finished, Listing, Location, ObjectStream, ObjectWriter, Shares,
    Store,
    disk::DiskStore,
    random_hex,
    room::{Room, RoomShare},
};

/// Parts in files of their own, and finished objects as on a disk.
#[derive(Debug, Clone)]
pub(crate) struct PartStore {
    disk: DiskStore,
    parts: Arc<Path>,
}

impl PartStore {
    pub(crate) fn open(root: &Path) -> Self {
        DiskStore::open(root).unwrap();
        Self::at(root)
    }

    /// The store in `root`, as it is there.
    pub(crate) fn at(root: &Path) -> Self {
        let parts = root.join("parts");
        fs::create_dir_all(&parts).unwrap();
        Self { disk: DiskStore::at(root).without_durability(), parts: parts.into() }
    }
}

/// Stands before the name of a part that may be there, and does not count.
const RESERVED: char = '?';

/// The names of the parts in a draft.
fn names(state: Option<&str>) -> impl Iterator<Item = &str> {
    state.unwrap_or_default().split(' ').filter(|name| !name.is_empty())
}

/// Those of them that count.
fn counted(state: Option<&str>) -> impl Iterator<Item = &str> {
    names(state).filter(|name| !name.starts_with(RESERVED))
}

#[async_trait]
impl Store for PartStore {
    fn is_local(&self) -> bool {
        false
    }

    async fn length(&self, location: &Location) -> Result<u64, Error> {
        self.disk.length(location).await
    }

    async fn read(
        &self,
        shares: Option<&Shares>,
        location: &Location,
        part: Range<u64>,
    ) -> Result<ObjectStream, Error> {
        self.disk.read(shares, location, part).await
    }

    fn is_sealed(&self, _draft: &Draft) -> bool {
        false
    }

    fn reserve(&self, draft: &Draft) -> Result<Option<Draft>, Error> {
        let (name, before) = (random_hex()?, draft.state.clone().unwrap_or_default());
        let state = Some(format!("{before} {RESERVED}{name}"));
        Ok(Some(Draft { state, ..draft.clone() }))
    }

    async fn open(&self, draft: Draft) -> Result<Box<dyn ObjectWriter>, Error> {
        Ok(Box::new(PartWriter { store: self.clone(), draft, part: Vec::new() }))
    }

    async fn cut_back(&self, _draft: &Draft) -> Result<(), Error> {
        Ok(())
    }

    async fn put(
        &self,
        location: &Location,
        length: u64,
        bytes: ObjectStream,
    ) -> Result<(), Error> {
        self.disk.put(location, length, bytes).await
    }

    async fn delete(&self, dead: &[Dead]) -> Vec<Result<(), Error>> {
        for name in dead.iter().flat_map(|dead| names(dead.state.as_deref())) {
            let _ = fs::remove_file(self.parts.join(name.trim_start_matches(RESERVED)));
        }
        self.disk.delete(dead).await
    }

    async fn describe(&self, location: &Location) -> Result<Described, Error> {
        self.disk.describe(location).await
    }

    async fn list(&self, shard: u8) -> Result<Listing, Error> {
        self.disk.list(shard).await
    }

    fn room(&self) -> Option<&Room> {
        None
    }

    async fn free_bytes(&self) -> Result<Option<u64>, Error> {
        Ok(None)
    }
}

struct PartWriter {
    store: PartStore,
    draft: Draft,
    part: Vec<u8>,
}

impl PartWriter {
    /// Writes what was appended under the name that was reserved last.
    fn put_part(&mut self) {
        if self.part.is_empty() {
            return;
        }
        let before = self.draft.state.take().unwrap_or_default();
        let (before, name) = before.rsplit_once(RESERVED).expect("a reserved name");
        fs::write(self.store.parts.join(name), &self.part).unwrap();
        self.draft.received += std::mem::take(&mut self.part).len() as u64;
        self.draft.state = Some(format!("{before}{name}"));
    }

    /// The parts that the draft names, one behind the other.
    fn whole(&self) -> Result<Vec<u8>, Error> {
        let missing = |_| Error::NotFound(self.draft.location.clone());
        let parts = counted(self.draft.state.as_deref());
        let parts: Vec<Vec<u8>> = parts
            .map(|name| fs::read(self.store.parts.join(name)).map_err(missing))
            .collect::<Result<_, _>>()?;
        let whole = parts.concat();
        let is_whole = whole.len() as u64 == self.draft.received;
        if is_whole { Ok(whole) } else { Err(Error::NotFound(self.draft.location.clone())) }
    }
}

#[async_trait]
impl ObjectWriter for PartWriter {
    async fn append(&mut self, chunks: Vec<Bytes>) -> Result<Option<Draft>, Error> {
        self.whole()?;
        self.part.extend(chunks.concat());
        Ok(None)
    }

    fn may_rest(&mut self, _may_stay_open: bool, _room: Option<&RoomShare>) -> bool {
        false
    }

    async fn checkpoint(mut self: Box<Self>) -> Result<Draft, Error> {
        self.put_part();
        Ok(self.draft)
    }

    async fn seal(&mut self) -> Result<Option<Draft>, Error> {
        self.put_part();
        Ok(Some(self.draft.clone()))
    }

    async fn finish(self: Box<Self>) -> Result<Finished, Error> {
        assert!(self.part.is_empty(), "it was not sealed");
        let location = self.draft.location.clone();
        // Whoever finished it already has removed its parts.
        if self.store.length(&location).await.is_ok_and(|length| length == self.draft.received) {
            return Ok(Finished { location, left: None });
        }
        let mut object = self.store.disk.open(Draft::of(location.clone(), 0)).await?;
        object.append(vec![self.whole()?.into()]).await?;
        object.finish().await?;
        for name in names(self.draft.state.as_deref()) {
            let _ = fs::remove_file(self.store.parts.join(name.trim_start_matches(RESERVED)));
        }
        Ok(Finished { location, left: None })
    }
}
