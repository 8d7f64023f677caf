//! Upload sessions over HTTP: end-4 to end-6, end-11, end-13, end-14. `Location` is relative
//! throughout, so that nothing has to be known about proxies in front.

use axum::{
    http::{HeaderName, StatusCode, header},
    response::{IntoResponse, Response},
};
use berth_shared::digest::Digest;

use super::{
    call::Call,
    created,
    error::{Answer, Error},
    query::Mount,
    range, value,
};
use crate::{
    authz::permit::Permit,
    metadata::upload::{Pusher, UploadId},
    registry::{
        self,
        content::Content,
        upload::{ChunkRange, Progress},
    },
};

pub(super) const UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");
const CHUNK_MIN_LENGTH: HeaderName = HeaderName::from_static("oci-chunk-min-length");

impl Call<'_> {
    pub(super) async fn start_upload(&self, permit: &Permit, content: &mut Content) -> Answer {
        let registry = &self.app.registry;
        if let Some(mount) = self.query.mount()
            && self.mount(permit, &mount).await?
        {
            return Ok(blob_created(permit, &mount.digest));
        }
        let pusher = Pusher::of(self.claimant);
        let Some(digest) = self.query.get("digest") else {
            let algorithm = self.query.digest_algorithm()?;
            let progress = registry.uploads.start(permit, pusher, algorithm).await?;
            let mut response = session(StatusCode::ACCEPTED, permit, &progress);
            if let Some(bytes) = registry.uploads.chunk_bytes_min() {
                response.headers_mut().insert(CHUNK_MIN_LENGTH, bytes.into());
            }
            return Ok(response);
        };
        let digest: Digest = digest.parse().map_err(registry::Error::from)?;
        let id = registry.uploads.start(permit, pusher, digest.algorithm()).await?.id;
        if let Err(error) = registry.uploads.commit(permit, &id, &digest, None, content).await {
            // The client never learns the session's id. One that has ended already is fine.
            let _ = registry.uploads.cancel(permit, &id).await;
            return Err(error.into());
        }
        Ok(blob_created(permit, &digest))
    }

    /// Links the blob here if the subject may pull it from the repository that is named, or, where
    /// none is, from any.
    async fn mount(&self, permit: &Permit, mount: &Mount) -> Result<bool, Error> {
        let (registry, digest) = (&self.app.registry, &mount.digest);
        let authorizer = &self.app.authorizer;
        let mounted = match &mount.from {
            Some(from) => match authorizer.permit_to_pull(self.token, from).await {
                Some(source) => registry.mounts.mount(permit, &source, digest).await,
                None => Ok(false),
            },
            None => {
                let reach = authorizer.reach(self.token).await;
                registry.mounts.mount_from_any(permit, &reach, digest).await
            }
        };
        Ok(mounted?)
    }

    pub(super) async fn upload_progress(&self, permit: &Permit, id: &UploadId) -> Answer {
        let progress = self.app.registry.uploads.progress(permit, id).await?;
        Ok(session(StatusCode::NO_CONTENT, permit, &progress))
    }

    pub(super) async fn append_upload(
        &self,
        permit: &Permit,
        id: &UploadId,
        content: &mut Content,
    ) -> Answer {
        let range = self.chunk_range(permit, id).await?;
        let appended = self.app.registry.uploads.append(permit, id, range, content).await;
        let progress = appended.map_err(|error| out_of_order(permit, error))?;
        Ok(session(StatusCode::ACCEPTED, permit, &progress))
    }

    pub(super) async fn commit_upload(
        &self,
        permit: &Permit,
        id: &UploadId,
        content: &mut Content,
    ) -> Answer {
        let digest = self.query.get("digest").unwrap_or_default();
        let digest: Digest = digest.parse().map_err(registry::Error::from)?;
        let registry = &self.app.registry;
        let range = self.chunk_range(permit, id).await?;
        match registry.uploads.commit(permit, id, &digest, range, content).await {
            // Asked once more by a client that the first answer did not reach (RFC 9110 §9.2.2). It
            // reads the answer when it has sent what it sends, which is the blob at most.
            Err(registry::Error::UploadUnknown) => {
                let blob = registry.blobs.find_sound(permit, &digest).await;
                content.discard(blob.map_err(|_| registry::Error::UploadUnknown)?.size).await;
            }
            committed => committed.map_err(|error| out_of_order(permit, error))?,
        }
        Ok(blob_created(permit, &digest))
    }

    pub(super) async fn cancel_upload(&self, permit: &Permit, id: &UploadId) -> Answer {
        self.app.registry.uploads.cancel(permit, id).await?;
        Ok(StatusCode::NO_CONTENT.into_response())
    }

    /// Where the chunk belongs, if it says so. A client that wrote what cannot be read is told where
    /// the session stands, as if it had been at the wrong place.
    async fn chunk_range(
        &self,
        permit: &Permit,
        id: &UploadId,
    ) -> Result<Option<ChunkRange>, Error> {
        let Some(range) = self.parts.headers.get(header::CONTENT_RANGE) else { return Ok(None) };
        if let Some(range) = range.to_str().ok().and_then(range::chunk) {
            return Ok(Some(range));
        }
        let message =
            "Content-Range must be first and last byte, as in 0-1023: see the Range header";
        Err(stands(permit, &self.app.registry.uploads.progress(permit, id).await?, message))
    }
}

/// The client is told where the session lies and stands, so that it can go on from there.
fn out_of_order(permit: &Permit, error: registry::Error) -> Error {
    match error {
        registry::Error::OutOfOrder { progress } => {
            let message = "the chunk does not begin where the upload stands: see the Range header";
            stands(permit, &progress, message)
        }
        error => error.into(),
    }
}

fn stands(permit: &Permit, progress: &Progress, message: &'static str) -> Error {
    Error::OutOfOrder {
        message,
        location: location(permit, &progress.id),
        range: range_of(progress.received),
    }
}

fn location(permit: &Permit, id: &UploadId) -> String {
    format!("/v2/{}/blobs/uploads/{id}", permit.repository())
}

/// The bytes that a session holds, first and last included; `0-0` stands for none as well.
fn range_of(received: u64) -> String {
    format!("0-{}", received.saturating_sub(1))
}

fn session(status: StatusCode, permit: &Permit, progress: &Progress) -> Response {
    let headers = [
        (header::LOCATION, value(location(permit, &progress.id))),
        (header::RANGE, value(range_of(progress.received))),
        (UPLOAD_UUID, value(progress.id.as_str())),
    ];
    (status, headers).into_response()
}

fn blob_created(permit: &Permit, digest: &Digest) -> Response {
    created(format!("/v2/{}/blobs/{digest}", permit.repository()), digest)
}
