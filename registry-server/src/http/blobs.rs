//! Blobs over HTTP: end-2 and end-10.

use std::ops::Range;

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use berth_shared::{digest::Digest, serve::etag::has_already};

use super::{
    CONTENT_DIGEST,
    call::Call,
    error::{Answer, Error},
    multipart::{Multipart, content_range},
    range::{Wanted, wanted},
    value,
};
use crate::{authz::permit::Permit, metadata::blob::Blob, registry::blob::Blobs, storage::Shares};

impl Call<'_> {
    pub(super) async fn read_blob(&self, permit: &Permit, digest: &Digest) -> Answer {
        let blobs = &self.app.registry.blobs;
        let etag = format!("\"{digest}\"");
        let blob = match self.is_head() {
            true => blobs.find_sound(permit, digest).await?,
            false => blobs.find(permit, digest).await?,
        };
        let has_already = self.has_already(&etag);
        if has_already || self.is_head() {
            let status = if has_already { StatusCode::NOT_MODIFIED } else { StatusCode::OK };
            return Ok(describe(status.into_response(), digest, &etag, blob.size));
        }
        if let Some(url) = blobs.signed_url(&blob).await? {
            return Ok(elsewhere(&url, digest));
        }
        let headers = &self.parts.headers;
        let same =
            headers.get(header::IF_RANGE).is_none_or(|tag| tag.as_bytes() == etag.as_bytes());
        let range =
            headers.get(header::RANGE).filter(|_| same).and_then(|range| range.to_str().ok());
        let shares = self.shares();
        match range.map_or(Wanted::Whole, |it| wanted(it, blob.size)) {
            Wanted::Whole => {
                let stream = blobs.read(&shares, &blob, 0..blob.size).await?;
                let response = Response::new(Body::from_stream(stream));
                Ok(describe(response, digest, &etag, blob.size))
            }
            Wanted::Parts(parts) => {
                let (response, length) = partial(blobs, &shares, &blob, parts).await?;
                Ok(describe(response, digest, &etag, length))
            }
            Wanted::Nothing => Err(Error::RangeNotSatisfiable { size: blob.size }),
        }
    }

    pub(super) async fn delete_blob(&self, permit: &Permit, digest: &Digest) -> Answer {
        self.app.registry.blobs.delete(permit, digest).await?;
        Ok(StatusCode::ACCEPTED.into_response())
    }

    /// Whether the client says that it has the content already.
    pub(super) fn has_already(&self, etag: &str) -> bool {
        has_already(&self.parts.headers, etag)
    }
}

/// Sends the client to where the bytes are. The URL is for a while, and for whoever has it.
fn elsewhere(url: &str, digest: &Digest) -> Response {
    let headers = [
        (header::LOCATION, value(url)),
        (header::CACHE_CONTROL, HeaderValue::from_static("private, no-store")),
        (CONTENT_DIGEST, value(digest.as_str())),
    ];
    (StatusCode::TEMPORARY_REDIRECT, headers).into_response()
}

/// An answer with these parts of the blob, and its length: one as it is, several in a frame.
async fn partial(
    blobs: &Blobs,
    shares: &Shares,
    blob: &Blob,
    parts: Vec<Range<u64>>,
) -> Result<(Response, u64), Error> {
    let (mut response, length) = if let [part] = &parts[..] {
        let stream = blobs.read(shares, blob, part.clone()).await?;
        let mut response = Response::new(Body::from_stream(stream));
        let range = value(content_range(part, blob.size));
        response.headers_mut().insert(header::CONTENT_RANGE, range);
        (response, part.end - part.start)
    } else {
        let frame = Multipart::new(blob, parts.clone());
        let (kind, length) = (value(frame.content_type()), frame.length());
        let contents = blobs.read_parts(shares, blob, parts).await?;
        let mut response = Response::new(frame.body(contents));
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        (response, length)
    };
    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    Ok((response, length))
}

/// A blob is whatever a client uploaded: a browser must neither guess its type nor run it.
fn describe(mut response: Response, digest: &Digest, etag: &str, length: u64) -> Response {
    let headers = response.headers_mut();
    let bytes = HeaderValue::from_static("application/octet-stream");
    headers.entry(header::CONTENT_TYPE).or_insert(bytes);
    headers.insert(header::CONTENT_LENGTH, length.into());
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::ETAG, value(etag));
    headers.insert(CONTENT_DIGEST, value(digest.as_str()));
    let nothing = HeaderValue::from_static("default-src 'none'; sandbox");
    headers.insert(header::CONTENT_SECURITY_POLICY, nothing);
    response
}
