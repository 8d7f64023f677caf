//! Upload sessions: start, append, commit, cancel.
//!
//! What a session's row says is durable: bytes are synced before the row counts them, so a session
//! goes on after a crash where the row stands. A commit inserts the blob's row last, so nothing
//! half-written is ever visible.

use std::{slice, sync::Arc};

use berth_shared::{
    clock::UnixSeconds,
    digest::{Algorithm, Digest},
};

use super::{
    Error,
    backend::{Backend, Known},
    content::Content,
    hash::Hasher,
};
use crate::{
    authz::permit::{Permit, SessionGrant},
    metadata::{
        blob::{Blob, Received},
        upload::{Pusher, Upload, UploadId},
    },
    storage::{Draft, Finished, Location, room::Room},
};

mod pusher;
mod receive;
mod turn;

use pusher::Pushers;
use receive::Reception;
use turn::Turns;

/// How far a session has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Which session.
    pub id: UploadId,
    /// How many bytes it holds.
    pub received: u64,
}

impl Progress {
    fn of(upload: &Upload) -> Self {
        Self { id: upload.id.clone(), received: upload.draft.received }
    }
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
        let room = backend.store.room().cloned();
        Self { backend, turns: Arc::default(), pushers: Arc::new(Pushers::new(uploads_max, room)) }
    }

    /// The same sessions, over another backend.
    pub(super) fn on(&self, backend: Backend) -> Self {
        Self { backend, ..self.clone() }
    }

    /// How many uploads receive bytes now, and how many may at once.
    pub(crate) fn receiving(&self) -> (usize, usize) {
        self.pushers.slots()
    }

    /// How long chunks had better be that are not the last, in bytes; shorter ones cost more, and are
    /// taken all the same.
    pub(crate) fn chunk_bytes_min(&self) -> Option<u64> {
        self.backend.store.room().map(Room::part_bytes)
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
        let (has, _) =
            self.backend.database.unfinished_of(&pusher, self.backend.idle_since(), max).await?;
        if has >= max.into() {
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
            draft: Draft::of(Location::fresh()?, 0),
            claim: 0,
            algorithm,
            hash_state: None,
            started: self.backend.clock.now(),
        };
        let progress = Progress::of(&upload);
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
        Ok(Progress::of(&self.session(permit, id).await?))
    }

    /// Appends a chunk. A request that is still appending to the same session is stopped first; what it
    /// brought counts. One at another server records nothing any more, and what it had counts.
    pub(crate) async fn append(
        &self,
        permit: &Permit,
        id: &UploadId,
        range: Option<ChunkRange>,
        body: &mut Content,
    ) -> Result<Progress, Error> {
        let mut reception = self.begin_reception(permit, id, range, body).await?;
        reception.append(body).await?;
        Ok(Progress::of(&reception.upload))
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
        let mut reception = self.begin_reception(permit, id, range, body).await?;
        let (received, object) = reception.finish(body, digest.algorithm()).await?;
        let upload = &reception.upload;
        if received != *digest {
            self.end_session(upload, None).await?;
            return Err(Error::DigestMismatch);
        }
        let unsound = match self.backend.know(digest).await? {
            Known::Unsound(location) => Some(location),
            Known::Sound(_) | Known::Nothing => None,
        };
        let (size, Finished { location, left }) = (reception.received, object);
        let blob = Blob { digest: received, size, location, damaged: false };
        self.backend.refuse_when_read_only()?;
        let due = self.backend.due();
        let (received, now) = (Received { blob, unsound, left, due }, self.backend.clock.now());
        let dead = self.backend.database.commit_blob(upload, received, now).await?;
        self.backend.drop_objects(&dead.ok_or(Error::UploadUnknown)?).await;
        Ok(())
    }

    async fn begin_reception(
        &self,
        permit: &Permit,
        id: &UploadId,
        range: Option<ChunkRange>,
        body: &mut Content,
    ) -> Result<Reception<'_>, Error> {
        let turn = self.turns.take(id).await?;
        let upload = self.claim(permit, id).await?;
        if self.backend.store.is_sealed(&upload.draft) && body.length() != Some(0) {
            // It is one blob already, whatever comes now: the client begins another.
            self.end_session(&upload, None).await?;
            return Err(Error::UploadUnknown);
        }
        in_order(&upload, range, body)?;
        let slots_max = self.backend.settings().limits.uploads_per_subject_max;
        let pushing = self.pushers.begin(&upload.pusher, slots_max);
        let hasher = self.resume_hash(&upload).await?;
        Ok(Reception::new(&self.backend, turn, pushing, upload, hasher))
    }

    /// The hash over what the session holds: from its saved state, else by reading it again.
    async fn resume_hash(&self, upload: &Upload) -> Result<Hasher, Error> {
        let saved = upload.hash_state.as_deref();
        match saved.and_then(|state| Hasher::from_state(upload.algorithm, state)) {
            Some(hasher) => Ok(hasher),
            None if upload.draft.received == 0 => Ok(Hasher::new(upload.algorithm)),
            // A store that cannot read what is unfinished finds nothing, which ends the session.
            None => Hasher::over(&*self.backend.store, &upload.draft, upload.algorithm).await,
        }
    }

    /// Ends a session and drops what it received.
    pub(crate) async fn cancel(&self, permit: &Permit, id: &UploadId) -> Result<(), Error> {
        let _turn = self.turns.take(id).await?;
        let upload = self.claim(permit, id).await?;
        self.end_session(&upload, None).await.map(drop)
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
    pub(super) async fn end_idle(
        &self,
        upload: &Upload,
        idle_since: UnixSeconds,
    ) -> Result<bool, Error> {
        // A request here that still appends may not have recorded for a while how far it came.
        if self.turns.is_active(&upload.id) {
            return Ok(false);
        }
        self.end_session(upload, Some(idle_since)).await
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

    /// The same for who goes on with it, when nobody else here does: nor does anybody at another server
    /// from now on.
    async fn claim(&self, permit: &Permit, id: &UploadId) -> Result<Upload, Error> {
        if !self.backend.is_shared() {
            return self.session(permit, id).await;
        }
        let whose = (permit.repository(), permit.subject().claim());
        let (idle_since, now) = (self.backend.idle_since(), self.backend.clock.now());
        let claimed = self.backend.database.claim_upload(id, whose, idle_since, now).await?;
        claimed.ok_or(Error::UploadUnknown)
    }

    async fn end_session(
        &self,
        upload: &Upload,
        idle_since: Option<UnixSeconds>,
    ) -> Result<bool, Error> {
        let is_ended =
            self.backend.database.end_upload(upload, idle_since, self.backend.due()).await?;
        if is_ended {
            self.backend.drop_objects(slice::from_ref(&upload.draft)).await;
        }
        Ok(is_ended)
    }
}

/// Whether the chunk begins where the session stands and is as long as it says.
fn in_order(upload: &Upload, range: Option<ChunkRange>, body: &Content) -> Result<(), Error> {
    let Some(range) = range else { return Ok(()) };
    if range.first != upload.draft.received {
        return Err(Error::OutOfOrder { progress: Progress::of(upload) });
    }
    let announced = range.last.checked_sub(range.first).and_then(|length| length.checked_add(1));
    match (announced, body.length()) {
        (None, _) => Err(Error::UploadInvalid("the Content-Range ends before it begins")),
        (Some(announced), Some(length)) if announced != length => Err(Error::SizeInvalid),
        _ => Ok(()),
    }
}
