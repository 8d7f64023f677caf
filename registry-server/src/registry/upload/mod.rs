//! Upload sessions: start, append, commit, cancel.
//!
//! What a session's row says is durable: bytes are synced before the row counts them, so a session
//! goes on after a crash where the row stands. A commit inserts the blob's row last, so nothing
//! half-written is ever visible.

use std::sync::Arc;

use berth_shared::{
    clock::UnixSeconds,
    digest::{Algorithm, Digest},
};

use super::{Error, backend::Backend, content::Content, hash::Hasher};
use crate::{
    authz::permit::{Permit, SessionGrant},
    metadata::{
        blob::{Blob, PutBlob, Received},
        upload::{Pusher, Upload, UploadId},
    },
    storage::{self, Location},
};

mod pusher;
mod receive;
mod turn;

use pusher::Pushers;
use receive::{Ending, Reception};
use turn::{Turn, Turns};

/// How far a session has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Which session.
    pub id: UploadId,
    /// How many bytes it holds.
    pub received: u64,
}

/// Which bytes of the blob a chunk says it carries: first and last, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkRange {
    /// The first byte.
    pub first: u64,
    /// The last byte.
    pub last: u64,
}

/// The upload sessions; clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Uploads {
    backend: Backend,
    turns: Arc<Turns>,
    pushers: Arc<Pushers>,
}

impl Uploads {
    /// Sessions of which `uploads_max` receive bytes at once.
    pub(super) fn new(backend: Backend, uploads_max: usize) -> Self {
        Self { backend, turns: Arc::default(), pushers: Arc::new(Pushers::new(uploads_max)) }
    }

    /// The same sessions, over another backend.
    pub(super) fn on(&self, backend: Backend) -> Self {
        Self { backend, ..self.clone() }
    }

    /// How many uploads receive bytes now, and how many may at once.
    pub(crate) fn receiving(&self) -> (usize, usize) {
        self.pushers.slots()
    }

    /// Starts a session whose bytes will be hashed with `algorithm`, and that counts to the share
    /// of `pusher`.
    pub(crate) async fn start(
        &self,
        permit: &Permit,
        pusher: Pusher,
        algorithm: Algorithm,
    ) -> Result<Progress, Error> {
        self.backend.refuse_when_full().await?;
        // Looked at here too, so that a flood of refusals never reaches the one writer.
        let max = self.backend.settings().limits.sessions_per_subject_max;
        if self.backend.database.sessions_of(&pusher, self.backend.idle_since(), max).await?
            >= max.into()
        {
            return Err(self.too_many_sessions());
        }
        self.start_session(permit, pusher, algorithm, UploadId::fresh()?).await
    }

    async fn start_session(
        &self,
        permit: &Permit,
        pusher: Pusher,
        algorithm: Algorithm,
        id: UploadId,
    ) -> Result<Progress, Error> {
        let upload = Upload {
            id,
            repository: permit.repository().clone(),
            subject: permit.subject().claim().to_owned(),
            pusher,
            location: Location::fresh()?,
            received: 0,
            algorithm,
            hash_state: None,
            started: self.backend.clock.now(),
        };
        let progress = Progress { id: upload.id.clone(), received: 0 };
        let (idle_since, max) =
            (self.backend.idle_since(), self.backend.settings().limits.sessions_per_subject_max);
        let is_within = self.backend.database.start_upload(upload, idle_since, max).await?;
        if is_within { Ok(progress) } else { Err(self.too_many_sessions()) }
    }

    fn too_many_sessions(&self) -> Error {
        let limits = self.backend.settings().limits;
        let (max, idle_secs) = (limits.sessions_per_subject_max, limits.upload_idle.as_secs());
        Error::TooManySessions { max, idle_secs }
    }

    /// A session with an id that a test knows.
    #[cfg(test)]
    pub(crate) async fn start_as(&self, permit: &Permit, id: UploadId) -> Result<(), Error> {
        let claimant = berth_shared::claimant::Claimant::of(permit.subject(), None);
        let pusher = Pusher::of(&claimant);
        self.start_session(permit, pusher, Algorithm::Sha256, id).await.map(drop)
    }

    /// How far a session has come.
    pub(crate) async fn progress(&self, permit: &Permit, id: &UploadId) -> Result<Progress, Error> {
        let upload = self.session(permit, id).await?;
        Ok(Progress { id: upload.id, received: upload.received })
    }

    /// Appends a chunk. A request that is still appending to the same session is stopped first;
    /// what it brought counts.
    pub(crate) async fn append(
        &self,
        permit: &Permit,
        id: &UploadId,
        range: Option<ChunkRange>,
        body: &mut Content,
    ) -> Result<Progress, Error> {
        let turn = self.turns.take(id).await?;
        let mut upload = self.session(permit, id).await?;
        in_order(&upload, range, body)?;
        let (hasher, ending) = self.receive(&mut upload, body, &turn).await?;
        self.record(&upload, &hasher).await?;
        ending.complete()?;
        Ok(Progress { id: upload.id, received: upload.received })
    }

    /// Appends the last chunk, if there is one, and makes the blob out of what was received.
    pub(crate) async fn commit(
        &self,
        permit: &Permit,
        id: &UploadId,
        digest: &Digest,
        range: Option<ChunkRange>,
        body: &mut Content,
    ) -> Result<(), Error> {
        let turn = self.turns.take(id).await?;
        let mut upload = self.session(permit, id).await?;
        in_order(&upload, range, body)?;
        let (hasher, ending) = self.receive(&mut upload, body, &turn).await?;
        if let Err(error) = ending.complete() {
            self.record(&upload, &hasher).await?;
            return Err(error);
        }
        if self.digest_of(&upload, hasher, digest.algorithm()).await? != *digest {
            self.end_session(&upload).await?;
            return Err(Error::DigestMismatch);
        }
        self.make_blob(&upload, digest).await
    }

    async fn receive(
        &self,
        upload: &mut Upload,
        body: &mut Content,
        turn: &Turn<'_>,
    ) -> Result<(Hasher, Ending), Error> {
        let slots_max = self.backend.settings().limits.uploads_per_subject_max;
        let pushing = self.pushers.begin(&upload.pusher, slots_max);
        let (backend, superseded) = (&self.backend, &turn.superseded);
        let reception = Reception { backend, pushing: &pushing, superseded };
        let hasher = self.resume_hash(upload).await?;
        reception.take(upload, hasher, body).await
    }

    /// Records how far the session has come, once its object is there for good: the bytes are
    /// synced already, but after a power cut a file without a name would be none.
    async fn record(&self, upload: &Upload, hasher: &Hasher) -> Result<(), Error> {
        self.backend.store.sync_entry(&upload.location).await?;
        let (state, now) = (hasher.state(), self.backend.clock.now());
        let database = &self.backend.database;
        Ok(database.record_received(&upload.id, upload.received, state, now).await?)
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
    async fn digest_of(
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
        let store = &*self.backend.store;
        match Hasher::over(store, &upload.location, upload.received, algorithm).await {
            Err(Error::Store(storage::Error::NotFound(_))) => Err(Error::UploadUnknown),
            hasher => hasher,
        }
    }

    /// Ends a session and drops what it received.
    pub(crate) async fn cancel(&self, permit: &Permit, id: &UploadId) -> Result<(), Error> {
        let _turn = self.turns.take(id).await?;
        let upload = self.session(permit, id).await?;
        self.end_session(&upload).await
    }

    /// Whose session it is, and since when: what a token that expired meanwhile is judged by.
    pub(crate) async fn grant(&self, id: &UploadId) -> Result<Option<SessionGrant>, Error> {
        let upload = self.backend.database.upload(id, self.backend.idle_since()).await?;
        Ok(upload.map(|upload| SessionGrant {
            repository: upload.repository,
            subject: upload.subject,
            started: upload.started,
        }))
    }

    /// Ends a session that was found idle. `false` when somebody works on it after all.
    pub(crate) async fn end_idle(
        &self,
        upload: &Upload,
        idle_since: UnixSeconds,
    ) -> Result<bool, Error> {
        // A request that still appends records only at its end how far it came.
        if self.turns.is_active(&upload.id) {
            return Ok(false);
        }
        let gone = self.backend.database.end_idle_upload(&upload.id, idle_since).await?;
        if gone {
            self.backend.drop_object(&upload.location).await;
        }
        Ok(gone)
    }

    /// The session, if it is of the permit's subject and repository; any other is unknown.
    async fn session(&self, permit: &Permit, id: &UploadId) -> Result<Upload, Error> {
        let upload = self.backend.database.upload(id, self.backend.idle_since()).await?;
        upload
            .filter(|upload| {
                upload.repository == *permit.repository()
                    && upload.subject == permit.subject().claim()
            })
            .ok_or(Error::UploadUnknown)
    }

    /// Makes the received object a blob of the repository; its bytes are durable already.
    async fn make_blob(&self, upload: &Upload, digest: &Digest) -> Result<(), Error> {
        self.backend.store.sync_entry(&upload.location).await?;
        let blob = Blob {
            digest: digest.clone(),
            size: upload.received,
            location: upload.location.clone(),
            damaged: false,
        };
        let received = Received { blob, unsound: self.unsound_object_of(digest).await? };
        let (id, repository, now) = (&upload.id, &upload.repository, self.backend.clock.now());
        let put = self.backend.database.commit_blob(id, repository, received, now).await?;
        match put.ok_or(Error::UploadUnknown)? {
            PutBlob::New => {}
            PutBlob::Kept => self.backend.drop_object(&upload.location).await,
            PutBlob::Replaced(old) => self.backend.drop_object(&old).await,
        }
        Ok(())
    }

    /// Where the digest's present object lies, if that is missing or of the wrong length.
    async fn unsound_object_of(&self, digest: &Digest) -> Result<Option<Location>, Error> {
        let Some(blob) = self.backend.database.blob(digest).await? else { return Ok(None) };
        Ok(if self.backend.is_sound(&blob).await? { None } else { Some(blob.location) })
    }

    async fn end_session(&self, upload: &Upload) -> Result<(), Error> {
        self.backend.database.end_upload(&upload.id).await?;
        self.backend.drop_object(&upload.location).await;
        Ok(())
    }
}

/// Whether the chunk begins where the session stands and is as long as it says.
fn in_order(upload: &Upload, range: Option<ChunkRange>, body: &Content) -> Result<(), Error> {
    let Some(range) = range else { return Ok(()) };
    if range.first != upload.received {
        let progress = Progress { id: upload.id.clone(), received: upload.received };
        return Err(Error::OutOfOrder { progress });
    }
    let announced = range.last.checked_sub(range.first).and_then(|length| length.checked_add(1));
    match (announced, body.length()) {
        (None, _) => Err(Error::UploadInvalid("the Content-Range ends before it begins")),
        (Some(announced), Some(length)) if announced != length => Err(Error::SizeInvalid),
        _ => Ok(()),
    }
}
