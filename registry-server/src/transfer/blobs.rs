//! The blobs of a database one after the other, and where their objects come from and go to: what
//! backing up and restoring have in common.

use super::{copying::Copying, error::Error};
use crate::{
    metadata::{Database, blob::Blob, totals::BlobTotals, verification::Checked},
    registry::{
        event::{Event, Events},
        verify::unreadable_blob,
    },
    storage::{self, Store},
};

/// Blobs that are read from the database at once.
const PAGE: u32 = 256;

/// Images that a report names per blob.
const IMAGES_MAX: u32 = 20;

pub(super) struct Blobs {
    pub(super) database: Database,
    pub(super) objects: Copying,
    events: Events,
    last: Checked,
    pub(super) total: BlobTotals,
    /// Those that were come across.
    pub(super) done: BlobTotals,
}

impl Blobs {
    pub(super) async fn new(
        database: Database,
        objects: Copying,
        events: Events,
    ) -> Result<Self, Error> {
        Ok(Self {
            total: database.count_blobs().await?,
            database,
            objects,
            events,
            last: Checked::default(),
            done: BlobTotals::default(),
        })
    }

    /// The next of them. Behind the last one is nothing, and all entries are durable then. What
    /// cannot be read is told and counts as damaged.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<Blob>>, Error> {
        let page = self.database.blobs_after(&self.last, PAGE).await?;
        let Some((end, _)) = page.last() else {
            self.objects.sync().await?;
            return Ok(None);
        };
        self.last.clone_from(end);
        let (blobs, unreadable) = self.events.readable(page, unreadable_blob).await?;
        self.done.damaged += unreadable;
        Ok(Some(blobs))
    }

    /// Tells what is wrong with a blob, and which images need it.
    pub(super) async fn damaged(&mut self, blob: &Blob, what: &str) -> Result<(), Error> {
        self.done.damaged += 1;
        let images = self.database.images_with(&blob.digest, None, IMAGES_MAX).await?;
        let (digest, what) = (blob.digest.clone(), what.to_owned());
        Ok(self.events.say(Event::Damaged { digest, what, images }).await?)
    }

    /// Tells how far it is.
    pub(super) async fn progress(&self) -> Result<(), Error> {
        let Self { done, total, .. } = self;
        Ok(self.events.progress((done.count, total.count), (done.bytes, total.bytes)).await?)
    }
}

/// Whether an object lies there that has this length.
pub(super) async fn is_there(store: &dyn Store, blob: &Blob) -> Result<bool, storage::Error> {
    match store.length(&blob.location).await {
        Err(storage::Error::NotFound(_)) => Ok(false),
        length => Ok(length? == blob.size),
    }
}
