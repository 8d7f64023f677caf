//! Blobs of the old store that become objects: in a directory, or in a bucket.

use std::{
    fs::{File, Metadata},
    io,
    os::unix::fs::{FileExt, MetadataExt},
    sync::Arc,
};

use berth_shared::unix_owner::Owner;
use bytes::Bytes;
use futures_util::{StreamExt, stream};

use crate::{
    data::Objects,
    storage::{
        Error, Location, ObjectStream, Store,
        disk::{self, How},
    },
};

/// How much is read of a file at once.
const PIECE_BYTES: u64 = 1024 * 1024;

/// Makes objects of open files.
#[derive(Debug, Clone)]
pub(super) enum TakingIn {
    Disk(disk::TakingIn),
    /// No files lie there to link to: all are copied.
    Bucket(Arc<dyn Store>),
}

impl TakingIn {
    pub(super) fn new(objects: Objects, how: How, owner: Option<Owner>) -> Self {
        match objects {
            Objects::Disk(store) => Self::Disk(disk::TakingIn::new(store, how, owner)),
            Objects::S3(store) => Self::Bucket(Arc::new(store)),
        }
    }

    /// Makes an object of the file.
    pub(super) async fn take(&self, file: File, location: &Location) -> io::Result<()> {
        match self {
            Self::Disk(taking_in) => taking_in.take(&file, location),
            Self::Bucket(store) => {
                let before = file.metadata()?;
                let (length, looked_at) = (before.len(), file.try_clone()?);
                let put = store.put(location, length, pieces(file, length, location.clone()));
                put.await.map_err(|error| match error {
                    Error::Full => io::ErrorKind::StorageFull.into(),
                    error => io::Error::other(error),
                })?;
                let of = |meta: &Metadata| (meta.len(), meta.ctime(), meta.ctime_nsec());
                if of(&before) == of(&looked_at.metadata()?) {
                    return Ok(());
                }
                Err(io::Error::other("it has changed meanwhile"))
            }
        }
    }

    /// Makes the existence of objects durable.
    pub(super) fn sync(&self, locations: &[Location]) -> io::Result<()> {
        match self {
            Self::Disk(taking_in) => taking_in.sync(locations),
            Self::Bucket(_) => Ok(()),
        }
    }
}

/// What is in the file. Whoever imports has a thread for that.
fn pieces(file: File, length: u64, location: Location) -> ObjectStream {
    let read = move |at: u64| {
        let mut piece = vec![0; usize::try_from(PIECE_BYTES.min(length - at)).unwrap_or(0)];
        file.read_exact_at(&mut piece, at).map_err(|source| {
            let (operation, location) = ("reading", location.clone());
            Error::Io { operation, location, source }
        })?;
        Ok(Bytes::from(piece))
    };
    let starts = (0..length).step_by(usize::try_from(PIECE_BYTES).unwrap_or(usize::MAX));
    stream::iter(starts.map(read)).boxed()
}
