//! Manifests over HTTP: end-3, end-7, end-9. `Accept` is not looked at: there is one form of each.

use std::sync::Arc;

use axum::{
    body::Body,
    http::{HeaderName, StatusCode, header},
    response::{IntoResponse, Response},
};
use berth_shared::reference::Reference;

use super::{CONTENT_DIGEST, body::in_pieces, call::Call, created, error::Answer, value};
use crate::{
    authz::permit::Permit,
    registry::{content::Content, manifest::AsOf},
};

pub(super) const OCI_SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
pub(super) const OCI_TAG: HeaderName = HeaderName::from_static("oci-tag");

impl Call<'_> {
    pub(super) async fn read_manifest(&self, permit: &Permit, reference: &Reference) -> Answer {
        let memory = self.shares().memory;
        let as_of = if self.is_head() { AsOf::Now } else { AsOf::Lately };
        let manifests = &self.app.registry.manifests;
        let found = manifests.find(permit, reference, as_of, &memory).await?;
        let manifest = Arc::clone(&found.manifest);
        let etag = format!("\"{}\"", manifest.digest);
        let (status, body) = if self.has_already(&etag) {
            (StatusCode::NOT_MODIFIED, Body::empty())
        } else if self.is_head() {
            (StatusCode::OK, Body::empty())
        } else {
            (StatusCode::OK, in_pieces(found.bytes(&memory).await?))
        };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, value(manifest.media_type.as_str()));
        headers.insert(header::CONTENT_LENGTH, manifest.bytes.len().into());
        headers.insert(header::ETAG, value(etag));
        headers.insert(CONTENT_DIGEST, value(manifest.digest.as_str()));
        Ok(response)
    }

    pub(super) async fn put_manifest(
        &self,
        permit: &Permit,
        reference: &Reference,
        content: &mut Content,
    ) -> Answer {
        let registry = &self.app.registry;
        let tags = self.query.tags()?;
        let bytes = content.collect(&registry.settings().limits, &self.shares().memory).await?;
        let media_type = self.parts.headers.get(header::CONTENT_TYPE);
        let media_type = media_type.and_then(|it| it.to_str().ok()).map(without_parameters);
        let pushed =
            registry.manifests.put(permit, reference, tags.clone(), media_type, bytes).await?;
        let location = format!("/v2/{}/manifests/{}", permit.repository(), pushed.digest);
        let mut response = created(location, &pushed.digest);
        let headers = response.headers_mut();
        if let Some(subject) = &pushed.subject {
            headers.insert(OCI_SUBJECT, value(subject.as_str()));
        }
        if matches!(reference, Reference::Digest(_)) {
            for tag in &tags {
                headers.append(OCI_TAG, value(tag.as_str()));
            }
        }
        Ok(response)
    }

    pub(super) async fn delete_manifest(&self, permit: &Permit, reference: &Reference) -> Answer {
        self.app.registry.manifests.delete(permit, reference).await?;
        Ok(StatusCode::ACCEPTED.into_response())
    }
}

fn without_parameters(media_type: &str) -> &str {
    media_type.split(';').next().unwrap_or_default().trim()
}
