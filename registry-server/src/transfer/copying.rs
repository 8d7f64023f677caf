//! Objects that go from one store into another: into a backup, and back.

use std::sync::Arc;

use crate::{
    metadata::blob::Blob,
    storage::{self, Dead, Location, Store, disk},
};

/// A store, and one that is filled from it.
#[derive(Debug)]
pub(super) enum Copying {
    /// Two directories.
    Linking(disk::Copying),
    /// Whichever two.
    Streaming { source: Arc<dyn Store>, target: Arc<dyn Store> },
}

impl Copying {
    /// Where objects come from.
    pub(super) fn source(&self) -> &dyn Store {
        match self {
            Self::Linking(copying) => copying.source(),
            Self::Streaming { source, .. } => &**source,
        }
    }

    /// Where they go.
    pub(super) fn target(&self) -> &dyn Store {
        match self {
            Self::Linking(copying) => copying.target(),
            Self::Streaming { target, .. } => &**target,
        }
    }

    /// Puts a blob's object where it belongs, whatever lies there. The entry need not be durable before
    /// [`sync`](Self::sync). `false` when the source has no such object, or who works in it may not
    /// read it.
    pub(super) async fn take(&self, blob: &Blob) -> Result<bool, storage::Error> {
        let Blob { location, size, .. } = blob;
        match self {
            Self::Linking(copying) => copying.take(location).await,
            Self::Streaming { source, target } => {
                let taken = async {
                    let object = source.read(None, location, 0..*size).await?;
                    target.put(location, *size, object).await
                };
                match taken.await {
                    Err(storage::Error::NotFound(_)) => Ok(false),
                    taken => taken.map(|()| true),
                }
            }
        }
    }

    /// Deletes an object of the target; one that is missing is deleted already.
    pub(super) async fn remove(&self, location: &Location) -> Result<(), storage::Error> {
        let dead = [Dead::of(location.clone(), 0)];
        self.target().delete(&dead).await.into_iter().collect()
    }

    /// Removes from a shard of the target what copies that were broken off left there.
    pub(super) async fn remove_partial(&self, shard: u8) -> Result<(), storage::Error> {
        match self {
            Self::Linking(copying) => copying.remove_partial(shard).await,
            Self::Streaming { .. } => Ok(()),
        }
    }

    /// Makes all entries durable.
    pub(super) async fn sync(&self) -> Result<(), storage::Error> {
        match self {
            Self::Linking(copying) => copying.sync().await,
            Self::Streaming { .. } => Ok(()),
        }
    }
}
