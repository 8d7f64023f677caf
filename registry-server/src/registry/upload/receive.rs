//! The way of bytes into an object: received, hashed and written at the same time.

use berth_shared::digest::{Algorithm, Digest};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::{task::spawn_blocking, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    metadata::upload::Upload,
    registry::{Error, Registry, content::Content, hash::Hasher},
    storage::{self, ObjectWriter},
};

/// How much is gathered before it is hashed and written. Twice this is held per upload: one part
/// on its way to the disk, one being received.
const BATCH_BYTES: usize = 512 * 1024;

/// Chunks in a batch; a client that sends tiny ones must not make the list long.
const BATCH_CHUNKS: usize = 256;

/// After how many received bytes the free space is looked at again.
const FREE_CHECK_BYTES: u64 = 8 * 1024 * 1024;

/// What a batch of received chunks ended with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// More may follow.
    Full,
    /// The body ended.
    Complete,
    /// The body broke off or made no progress.
    CutOff,
    /// A newer request took over.
    Superseded,
}

impl Ending {
    /// Whether the whole body came.
    pub(super) fn complete(self) -> Result<(), Error> {
        match self {
            Self::Full | Self::Complete => Ok(()),
            Self::CutOff => Err(Error::BodyCutOff),
            Self::Superseded => Err(Error::Superseded),
        }
    }
}

impl Registry {
    /// Appends the body to the session's object and makes it durable, as far as it came. Gives
    /// the hash over all that the object now holds.
    pub(super) async fn receive(
        &self,
        upload: &mut Upload,
        body: &mut Content,
        superseded: &CancellationToken,
    ) -> Result<(Hasher, Ending), Error> {
        let mut hasher = self.resume_hash(upload).await?;
        if body.length() == Some(0) && upload.received > 0 {
            return Ok((hasher, Ending::Complete));
        }
        let _receiving = tokio::select! {
            turn = self.receiving.acquire() => turn.map_err(|_| Error::Superseded)?,
            () = superseded.cancelled() => return Ok((hasher, Ending::Superseded)),
        };
        self.refuse_when_full().await?;
        let mut writer = match self.store.write(&upload.location, upload.received).await {
            // The row counts more bytes than the object holds: nothing can be appended to that.
            Err(storage::Error::NotFound(_)) => return Err(Error::UploadUnknown),
            writer => writer?,
        };
        let mut received = upload.received;
        let pumped = self.pump(body, writer.as_mut(), &mut hasher, &mut received, superseded).await;
        let ending = match pumped {
            Ok(ending) => ending,
            Err(error) => {
                drop(writer);
                self.cut_back(upload).await;
                return Err(error);
            }
        };
        writer.sync().await?;
        upload.received = received;
        Ok((hasher, ending))
    }

    /// Gives back the room that bytes take which the row does not count; on a full disk at once.
    async fn cut_back(&self, upload: &Upload) {
        if let Err(error) = self.store.write(&upload.location, upload.received).await {
            let error = berth_shared::telemetry::chain(&error);
            tracing::warn!(upload = upload.id.as_str(), error, "cutting back an upload");
        }
    }

    /// Receives one batch while the one before is hashed and written.
    async fn pump(
        &self,
        body: &mut Content,
        writer: &mut dyn ObjectWriter,
        hasher: &mut Hasher,
        received: &mut u64,
        superseded: &CancellationToken,
    ) -> Result<Ending, Error> {
        let mut batch = Vec::new();
        let mut checked = *received;
        loop {
            if *received - checked >= FREE_CHECK_BYTES {
                self.refuse_when_full().await?;
                checked = *received;
            }
            let (stored, next) = tokio::join!(
                store(std::mem::take(&mut batch), writer, hasher, received),
                self.gather(body, superseded),
            );
            stored?;
            let ending = next.1;
            batch = next.0;
            if !matches!(ending, Ending::Full) {
                store(batch, writer, hasher, received).await?;
                return Ok(ending);
            }
        }
    }

    async fn gather(
        &self,
        body: &mut Content,
        superseded: &CancellationToken,
    ) -> (Vec<Bytes>, Ending) {
        let body_idle = self.settings().limits.body_idle;
        let mut batch = Vec::new();
        let mut bytes = 0;
        while bytes < BATCH_BYTES && batch.len() < BATCH_CHUNKS {
            let chunk = tokio::select! {
                chunk = timeout(body_idle, body.next()) => chunk,
                () = superseded.cancelled() => return (batch, Ending::Superseded),
            };
            match chunk {
                Ok(Some(Ok(chunk))) => {
                    bytes += chunk.len();
                    batch.push(chunk);
                }
                Ok(None) => return (batch, Ending::Complete),
                Ok(Some(Err(_))) | Err(_) => return (batch, Ending::CutOff),
            }
        }
        (batch, Ending::Full)
    }

    /// Records how far the session has come, once its object is there for good: the bytes are
    /// synced already, but after a power cut a file without a name would be none.
    pub(super) async fn record(&self, upload: &Upload, hasher: &Hasher) -> Result<(), Error> {
        self.store.sync_entry(&upload.location).await?;
        let (id, received) = (upload.id.clone(), upload.received);
        let (state, now) = (hasher.state(), self.clock.now());
        self.database
            .write(move |tx| {
                Box::pin(async move {
                    tx.record_received(&id, received, &state, now).await.map_err(Error::from)
                })
            })
            .await
    }

    /// The hash over what the session holds: from its saved state, else by reading it again.
    async fn resume_hash(&self, upload: &Upload) -> Result<Hasher, Error> {
        let saved = upload.hash_state.as_deref();
        match saved.and_then(|state| Hasher::from_state(upload.algorithm, state)) {
            Some(hasher) => Ok(hasher),
            None => self.hash_object(upload, upload.algorithm).await,
        }
    }

    /// The digest of what the session holds, under the algorithm that the client wants.
    pub(super) async fn digest_of(
        &self,
        upload: &Upload,
        hasher: Hasher,
        algorithm: Algorithm,
    ) -> Result<Digest, Error> {
        if hasher.algorithm() == algorithm {
            Ok(hasher.finish())
        } else {
            Ok(self.hash_object(upload, algorithm).await?.finish())
        }
    }

    async fn hash_object(&self, upload: &Upload, algorithm: Algorithm) -> Result<Hasher, Error> {
        let mut hasher = Hasher::new(algorithm);
        if upload.received == 0 {
            return Ok(hasher);
        }
        let mut object = match self.store.read(&upload.location, 0, upload.received).await {
            Err(storage::Error::NotFound(_)) => return Err(Error::UploadUnknown),
            object => object?,
        };
        while let Some(chunk) = object.next().await {
            hasher = hash(hasher, vec![chunk?]).await?;
        }
        Ok(hasher)
    }
}

/// Hashes and writes a batch, both at once and both off the threads that serve the network.
async fn store(
    batch: Vec<Bytes>,
    writer: &mut dyn ObjectWriter,
    hasher: &mut Hasher,
    received: &mut u64,
) -> Result<(), Error> {
    if batch.is_empty() {
        return Ok(());
    }
    let length: u64 = batch.iter().map(|chunk| chunk.len() as u64).sum();
    let hashing = hash(hasher.clone(), batch.clone());
    let (hashed, written) = tokio::join!(hashing, writer.append(batch));
    written?;
    *hasher = hashed?;
    *received += length;
    Ok(())
}

async fn hash(mut hasher: Hasher, batch: Vec<Bytes>) -> Result<Hasher, Error> {
    let hashed = spawn_blocking(move || {
        hasher.update(&batch);
        hasher
    });
    // A panic in there is the only way to fail, and then the digest is lost.
    hashed.await.map_err(|_| Error::UploadInvalid("the hash was lost"))
}
