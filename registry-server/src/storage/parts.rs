//! A store for tests that is as unlike a disk as one can be: it keeps what was received as parts, which
//! it names in the draft, cannot read them, does not know how much room there is, and makes an object
//! of them only when what it needs for that has been recorded.

use std::{fs, ops::Range, path::Path, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;

use super::{
    Dead, Described, Draft, Error, Listing, Location, ObjectStream, ObjectWriter, Shares, Store,
    disk::DiskStore,
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

/// The names of the parts in a draft.
fn names(state: Option<&str>) -> impl Iterator<Item = &str> {
    state.unwrap_or_default().split(' ').filter(|name| !name.is_empty())
}

#[async_trait]
impl Store for PartStore {
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

    async fn open(&self, draft: Draft, claim: u64) -> Result<Box<dyn ObjectWriter>, Error> {
        Ok(Box::new(PartWriter { store: self.clone(), draft, claim, part: Vec::new() }))
    }

    async fn cut_back(&self, _draft: &Draft) -> Result<(), Error> {
        Ok(())
    }

    async fn delete(&self, dead: &[Dead]) -> Vec<Result<(), Error>> {
        for name in dead.iter().flat_map(|dead| names(dead.state.as_deref())) {
            let _ = fs::remove_file(self.parts.join(name));
        }
        self.disk.delete(dead).await
    }

    async fn describe(&self, location: &Location) -> Result<Described, Error> {
        self.disk.describe(location).await
    }

    async fn list(&self, shard: u8) -> Result<Listing, Error> {
        self.disk.list(shard).await
    }

    async fn free_bytes(&self) -> Result<Option<u64>, Error> {
        Ok(None)
    }
}

struct PartWriter {
    store: PartStore,
    draft: Draft,
    claim: u64,
    part: Vec<u8>,
}

impl PartWriter {
    /// The parts that the draft names, one behind the other.
    fn whole(&self) -> Result<Vec<u8>, Error> {
        let missing = |_| Error::NotFound(self.draft.location.clone());
        let parts = names(self.draft.state.as_deref());
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
    async fn append(&mut self, chunks: Vec<Bytes>) -> Result<(), Error> {
        self.whole()?;
        self.part.extend(chunks.concat());
        Ok(())
    }

    async fn checkpoint(&mut self) -> Result<Draft, Error> {
        if !self.part.is_empty() {
            let number = names(self.draft.state.as_deref()).count();
            // What lies there by this name, nobody has recorded.
            let name = format!("{}.{}.{number}", self.draft.location.as_str(), self.claim);
            fs::write(self.store.parts.join(&name), &self.part).unwrap();
            self.draft.received += std::mem::take(&mut self.part).len() as u64;
            let before = self.draft.state.take().unwrap_or_default();
            self.draft.state = Some(format!("{before} {name}"));
        }
        Ok(self.draft.clone())
    }

    async fn seal(&mut self) -> Result<Option<Draft>, Error> {
        self.checkpoint().await.map(Some)
    }

    async fn finish(self: Box<Self>) -> Result<Location, Error> {
        assert!(self.part.is_empty(), "it was not sealed");
        let location = self.draft.location.clone();
        // Whoever finished it already has removed its parts.
        if self.store.length(&location).await.is_ok_and(|length| length == self.draft.received) {
            return Ok(location);
        }
        let object = Draft::of(location.clone(), 0);
        let mut object = self.store.disk.open(object, self.claim).await?;
        object.append(vec![self.whole()?.into()]).await?;
        object.finish().await?;
        for name in names(self.draft.state.as_deref()) {
            let _ = fs::remove_file(self.store.parts.join(name));
        }
        Ok(location)
    }
}
