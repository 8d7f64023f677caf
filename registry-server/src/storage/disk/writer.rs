//! A file that grows. It is opened when the first byte comes, and what was written is already being
//! synced while more comes.

use std::{
    fs::{File, OpenOptions},
    io::{self, IoSlice, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::Arc,
};

use async_trait::async_trait;
use berth_shared::files::sync_directory;
use bytes::Bytes;
use nix::fcntl::OFlag;
use tokio::task::JoinHandle;

use super::{DiskStore, ended, explain, on_disk};
use crate::storage::{Draft, Error, Finished, ObjectWriter, room::RoomShare};

/// After how many written bytes an early sync starts.
const EARLY_SYNC_BYTES: u64 = 16 * 1024 * 1024;

/// Writes behind what is durable of a file.
pub(super) struct DiskWriter {
    store: DiskStore,
    draft: Draft,
    /// How far the file was written.
    length: u64,
    file: Option<Arc<File>>,
    /// Whether all of that is durable, and the file's name.
    is_durable: bool,
    /// Bytes written since the last sync began.
    unsynced: u64,
    early_sync: Option<JoinHandle<io::Result<()>>>,
}

impl DiskWriter {
    pub(super) fn new(store: DiskStore, draft: Draft) -> Self {
        let length = draft.received;
        let is_durable = length > 0;
        Self { store, draft, length, file: None, is_durable, unsynced: 0, early_sync: None }
    }

    /// The file, cut off behind what is durable when it is opened.
    async fn open(&mut self) -> Result<Arc<File>, Error> {
        if let Some(file) = &self.file {
            return Ok(Arc::clone(file));
        }
        let length = self.length;
        let open = move |path: &Path| open_at(path, length, length == 0);
        let file = Arc::new(self.store.run("opening", &self.draft.location, open).await?);
        self.file = Some(Arc::clone(&file));
        Ok(file)
    }

    /// Starts syncing what has been written, unless the sync before is still running.
    async fn sync_early(&mut self, file: Arc<File>) -> Result<(), Error> {
        if self.early_sync.as_ref().is_some_and(|sync| !sync.is_finished()) {
            return Ok(());
        }
        self.await_early_sync().await?;
        self.early_sync = Some(on_disk("syncing", move || file.sync_data()));
        self.unsynced = 0;
        Ok(())
    }

    /// An error of an early sync must not be lost: the system reports each only once.
    async fn await_early_sync(&mut self) -> Result<(), Error> {
        let Some(sync) = self.early_sync.take() else { return Ok(()) };
        self.explain(ended(sync).await)
    }

    async fn sync(&mut self) -> Result<(), Error> {
        if self.is_durable {
            return Ok(());
        }
        let file = self.open().await?;
        if !self.store.durable {
            return Ok(());
        }
        self.await_early_sync().await?;
        // After a power cut a file without a name would be none.
        let is_named = self.draft.received > 0;
        let path = self.store.path(&self.draft.location);
        let identity = self.store.identity;
        let sync = move || {
            file.sync_data()?;
            match path.parent().filter(|_| !is_named) {
                Some(directory) => identity.within(|| sync_directory(directory)),
                None => Ok(()),
            }
        };
        self.unsynced = 0;
        self.explain(ended(on_disk("syncing", sync)).await)?;
        self.is_durable = true;
        Ok(())
    }

    fn explain(&self, synced: io::Result<()>) -> Result<(), Error> {
        synced.map_err(|error| explain("syncing", &self.draft.location, error))
    }
}

#[async_trait]
impl ObjectWriter for DiskWriter {
    async fn append(&mut self, chunks: Vec<Bytes>) -> Result<Option<Draft>, Error> {
        let length: u64 = chunks.iter().map(|chunk| chunk.len() as u64).sum();
        let file = self.open().await?;
        let written = {
            let file = Arc::clone(&file);
            on_disk("writing", move || write_chunks(&file, &chunks))
        };
        let location = &self.draft.location;
        ended(written).await.map_err(|error| explain("writing", location, error))?;
        self.length += length;
        self.unsynced += length;
        self.is_durable = false;
        if self.store.durable && self.unsynced >= EARLY_SYNC_BYTES {
            self.sync_early(file).await?;
        }
        Ok(None)
    }

    fn may_rest(&mut self, may_stay_open: bool, _room: Option<&RoomShare>) -> bool {
        may_stay_open
    }

    async fn checkpoint(mut self: Box<Self>) -> Result<Draft, Error> {
        self.sync().await?;
        Ok(Draft { received: self.length, ..self.draft })
    }

    async fn seal(&mut self) -> Result<Option<Draft>, Error> {
        Ok(None)
    }

    async fn finish(mut self: Box<Self>) -> Result<Finished, Error> {
        // Also where nothing was appended: the file must hold what its draft says, and no more.
        self.open().await?;
        self.sync().await?;
        Ok(Finished { location: self.draft.location, left: None })
    }
}

/// Opens the file to write behind `length`, and cuts off what lies there.
pub(super) fn open_at(path: &Path, length: u64, is_new: bool) -> io::Result<File> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(is_new)
        .truncate(false)
        .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits())
        .open(path)?;
    if file.metadata()?.len() < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    file.set_len(length)?;
    file.seek(SeekFrom::Start(length))?;
    Ok(file)
}

fn write_chunks(mut file: &File, chunks: &[Bytes]) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> = chunks.iter().map(|chunk| IoSlice::new(chunk)).collect();
    let mut rest = slices.as_mut_slice();
    IoSlice::advance_slices(&mut rest, 0);
    while !rest.is_empty() {
        match file.write_vectored(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut rest, written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
