//! Upload sessions: start, append, commit, cancel.
//!
//! What a session's row says is durable: bytes are synced before the row counts them, so a session
//! goes on after a crash where the row stands. A commit inserts the blob's row last, so nothing
//! half-written is ever visible.

use std::{collections::HashMap, sync::Arc};

use berth_shared::{
    clock::UnixSeconds,
    digest::{Algorithm, Digest},
};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::{Error, Registry, content::Content};
use crate::{
    authz::permit::{Permit, SessionGrant},
    metadata::{
        blob::{Blob, PutBlob, Received},
        upload::{Pusher, Upload, UploadId},
    },
    storage::Location,
};

mod pusher;
mod receive;

pub(crate) use pusher::Pushers;
use pusher::Pushing;

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

impl Registry {
    /// Starts a session whose bytes will be hashed with `algorithm`, and that counts to the share
    /// of `pusher`.
    pub(crate) async fn start_upload(
        &self,
        permit: &Permit,
        pusher: Pusher,
        algorithm: Algorithm,
    ) -> Result<Progress, Error> {
        self.refuse_when_full().await?;
        // Looked at here too, so that a flood of refusals never reaches the one writer.
        let max = self.settings().limits.sessions_per_subject_max;
        if self.database.sessions_of(&pusher, self.idle_since(), max).await? >= max.into() {
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
            started: self.clock.now(),
        };
        let progress = Progress { id: upload.id.clone(), received: 0 };
        let (idle_since, max) =
            (self.idle_since(), self.settings().limits.sessions_per_subject_max);
        let is_within = self.database.start_upload(upload, idle_since, max).await?;
        if is_within { Ok(progress) } else { Err(self.too_many_sessions()) }
    }

    fn too_many_sessions(&self) -> Error {
        let limits = self.settings().limits;
        let (max, idle_secs) = (limits.sessions_per_subject_max, limits.upload_idle.as_secs());
        Error::TooManySessions { max, idle_secs }
    }

    /// A session with an id that a test knows.
    #[cfg(test)]
    pub(crate) async fn start_session_as(
        &self,
        permit: &Permit,
        id: UploadId,
    ) -> Result<(), Error> {
        let claimant = berth_shared::claimant::Claimant::of(permit.subject(), None);
        let pusher = Pusher::of(&claimant);
        self.start_session(permit, pusher, Algorithm::Sha256, id).await.map(drop)
    }

    /// How far a session has come.
    pub(crate) async fn upload_progress(
        &self,
        permit: &Permit,
        id: &UploadId,
    ) -> Result<Progress, Error> {
        let upload = self.session(permit, id).await?;
        Ok(Progress { id: upload.id, received: upload.received })
    }

    /// Appends a chunk. A request that is still appending to the same session is stopped first;
    /// what it brought counts.
    pub(crate) async fn append_upload(
        &self,
        permit: &Permit,
        id: &UploadId,
        range: Option<ChunkRange>,
        body: &mut Content,
    ) -> Result<Progress, Error> {
        let turn = self.sessions.take_turn(id).await?;
        let mut upload = self.session(permit, id).await?;
        in_order(&upload, range, body)?;
        let pushing = self.begin_pushing(&upload);
        let received = self.receive(&mut upload, body, &pushing, &turn.superseded).await;
        let (hasher, ending) = received?;
        self.record(&upload, &hasher).await?;
        ending.complete()?;
        Ok(Progress { id: upload.id, received: upload.received })
    }

    /// Appends the last chunk, if there is one, and makes the blob out of what was received.
    pub(crate) async fn commit_upload(
        &self,
        permit: &Permit,
        id: &UploadId,
        digest: &Digest,
        range: Option<ChunkRange>,
        body: &mut Content,
    ) -> Result<(), Error> {
        let turn = self.sessions.take_turn(id).await?;
        let mut upload = self.session(permit, id).await?;
        in_order(&upload, range, body)?;
        let pushing = self.begin_pushing(&upload);
        let received = self.receive(&mut upload, body, &pushing, &turn.superseded).await;
        let (hasher, ending) = received?;
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

    fn begin_pushing(&self, upload: &Upload) -> Pushing<'_> {
        self.pushers.begin(&upload.pusher, self.settings().limits.uploads_per_subject_max)
    }

    /// Ends a session and drops what it received.
    pub(crate) async fn cancel_upload(&self, permit: &Permit, id: &UploadId) -> Result<(), Error> {
        let _turn = self.sessions.take_turn(id).await?;
        let upload = self.session(permit, id).await?;
        self.end_session(&upload).await
    }

    /// Whose session it is, and since when: what a token that expired meanwhile is judged by.
    pub(crate) async fn session_grant(&self, id: &UploadId) -> Result<Option<SessionGrant>, Error> {
        let upload = self.database.upload(id, self.idle_since()).await?;
        Ok(upload.map(|upload| SessionGrant {
            repository: upload.repository,
            subject: upload.subject,
            started: upload.started,
        }))
    }

    /// Ends a session that was found idle. `false` when somebody works on it after all.
    pub(crate) async fn end_idle_upload(
        &self,
        upload: &Upload,
        idle_since: UnixSeconds,
    ) -> Result<bool, Error> {
        // A request that still appends records only at its end how far it came.
        if self.sessions.is_active(&upload.id) {
            return Ok(false);
        }
        let gone = self.database.end_idle_upload(&upload.id, idle_since).await?;
        if gone {
            self.drop_object(&upload.location).await;
        }
        Ok(gone)
    }

    /// A session that was last touched before then is forgotten.
    pub(super) fn idle_since(&self) -> UnixSeconds {
        self.clock.now() - self.settings().limits.upload_idle.as_secs().cast_signed()
    }

    /// The session, if it is of the permit's subject and repository; any other is unknown.
    async fn session(&self, permit: &Permit, id: &UploadId) -> Result<Upload, Error> {
        let upload = self.database.upload(id, self.idle_since()).await?;
        upload
            .filter(|upload| {
                upload.repository == *permit.repository()
                    && upload.subject == permit.subject().claim()
            })
            .ok_or(Error::UploadUnknown)
    }

    pub(super) async fn refuse_when_full(&self) -> Result<(), Error> {
        let free = self.store.free_bytes().await?;
        if free < self.settings().limits.free_bytes_min { Err(Error::StoreFull) } else { Ok(()) }
    }

    /// Makes the received object a blob of the repository; its bytes are durable already.
    async fn make_blob(&self, upload: &Upload, digest: &Digest) -> Result<(), Error> {
        self.store.sync_entry(&upload.location).await?;
        let blob = Blob {
            digest: digest.clone(),
            size: upload.received,
            location: upload.location.clone(),
            damaged: false,
        };
        let received = Received { blob, unsound: self.unsound_object_of(digest).await? };
        let (id, repository, now) = (&upload.id, &upload.repository, self.clock.now());
        let put = self.database.commit_blob(id, repository, received, now).await?;
        match put.ok_or(Error::UploadUnknown)? {
            PutBlob::New => {}
            PutBlob::Kept => self.drop_object(&upload.location).await,
            PutBlob::Replaced(old) => self.drop_object(&old).await,
        }
        Ok(())
    }

    /// Where the digest's present object lies, if that is missing or of the wrong length.
    async fn unsound_object_of(&self, digest: &Digest) -> Result<Option<Location>, Error> {
        let Some(blob) = self.database.blob(digest).await? else { return Ok(None) };
        Ok(if self.is_sound(&blob).await? { None } else { Some(blob.location) })
    }

    async fn end_session(&self, upload: &Upload) -> Result<(), Error> {
        self.database.end_upload(&upload.id).await?;
        self.drop_object(&upload.location).await;
        Ok(())
    }

    /// Deletes an object that no row names any more. A failure leaves an orphan and nothing worse.
    async fn drop_object(&self, location: &Location) {
        if let Err(error) = self.store.delete(location).await {
            let error = berth_shared::telemetry::chain(&error);
            tracing::warn!(object = location.as_str(), error, "leaving an orphan object behind");
        }
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

/// Who may work on which session: one request at a time, and the newest goes first.
#[derive(Debug, Default)]
pub(crate) struct Sessions(Mutex<HashMap<UploadId, Arc<Session>>>);

#[derive(Debug, Default)]
struct Session {
    turn: Arc<tokio::sync::Mutex<()>>,
    /// Cancelled to stop whoever has the turn.
    superseded: Mutex<CancellationToken>,
}

/// The right to work on a session, until dropped.
struct Turn<'s> {
    sessions: &'s Sessions,
    id: UploadId,
    superseded: CancellationToken,
    permit: Option<tokio::sync::OwnedMutexGuard<()>>,
}

impl Sessions {
    /// Whether a request works on the session, or waits to.
    fn is_active(&self, id: &UploadId) -> bool {
        self.0.lock().contains_key(id)
    }

    /// Stops whoever works on the session and takes over once it has recorded what it received. Who
    /// waits for that is stopped by the next one too: two requests of a session are there at most.
    async fn take_turn(&self, id: &UploadId) -> Result<Turn<'_>, Error> {
        let superseded = CancellationToken::new();
        // Before the session, which it looks at when it is dropped.
        let mut turn =
            Turn { sessions: self, id: id.clone(), superseded: superseded.clone(), permit: None };
        let session = Arc::clone(self.0.lock().entry(id.clone()).or_default());
        let before = std::mem::replace(&mut *session.superseded.lock(), superseded.clone());
        before.cancel();
        let permit = Arc::clone(&session.turn).lock_owned();
        tokio::select! {
            permit = permit => turn.permit = Some(permit),
            () = superseded.cancelled() => return Err(Error::Superseded),
        }
        Ok(turn)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut sessions = self.sessions.0.lock();
        drop(self.permit.take());
        // Whoever waits for the turn holds the session too; the last one out removes it.
        if sessions.get(&self.id).is_some_and(|session| Arc::strong_count(session) == 1) {
            sessions.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn of_those_that_wait_for_a_session_the_last_alone_goes_on() {
        let sessions = Sessions::default();
        let id: UploadId = "0123456789abcdef0123456789abcdef".parse().unwrap();
        let first = sessions.take_turn(&id).await.unwrap();
        let mut second = Box::pin(sessions.take_turn(&id));
        assert!(second.as_mut().now_or_never().is_none() && first.superseded.is_cancelled());
        let mut third = Box::pin(sessions.take_turn(&id));
        assert!(third.as_mut().now_or_never().is_none());
        assert!(matches!(second.await, Err(Error::Superseded)));
        drop(first);
        drop(third.await.unwrap());
        assert!(!sessions.is_active(&id), "nothing is kept of it");
    }
}
