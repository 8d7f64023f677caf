//! Lists over HTTP: tags (end-8), the catalog, referrers (end-12), with `Link` to the next page.

use axum::{
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::Response,
};
use berth_shared::digest::Digest;
use serde_json::{Value, json};

use super::{Call, error::Error, json as json_response, value};
use crate::{
    authz::Permit,
    metadata::manifest::Referrer,
    registry::{self, list::Page},
};

const FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");

/// The exact type that referrers must be listed with.
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

impl Call<'_> {
    pub(super) async fn tags(&self, permit: &Permit) -> Result<Response, Error> {
        let request = self.query.page()?;
        let page = self.app.registry.tags(permit, &request).await?;
        let names: Vec<&str> = page.items.iter().map(|tag| tag.as_str()).collect();
        let body = json!({ "name": permit.repository().as_str(), "tags": names });
        let response = json_response(StatusCode::OK, body.to_string());
        Ok(self.with_link(response, &page, request.limit, names.last().copied()))
    }

    pub(super) async fn catalog(&self) -> Result<Response, Error> {
        let request = self.query.page()?;
        let rights = self.app.authorizer.rights_to_list(self.token).await;
        let rights = rights.ok_or(registry::Error::RightsUnavailable)?;
        let page = self.app.registry.catalog(&rights, &request).await?;
        let names: Vec<&str> = page.items.iter().map(|name| name.as_str()).collect();
        let response = json_response(StatusCode::OK, json!({ "repositories": names }).to_string());
        Ok(self.with_link(response, &page, request.limit, names.last().copied()))
    }

    pub(super) async fn referrers(
        &self,
        permit: &Permit,
        subject: &Digest,
    ) -> Result<Response, Error> {
        let request = self.query.page()?;
        let artifact_type = self.query.get("artifactType").filter(|wanted| !wanted.is_empty());
        let page = self.app.registry.referrers(permit, subject, artifact_type, &request).await?;
        let descriptors: Vec<Value> = page.items.iter().map(descriptor).collect();
        let body = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": descriptors });
        let mut response = json_response(StatusCode::OK, body.to_string());
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(INDEX));
        if artifact_type.is_some() {
            headers.insert(FILTERS_APPLIED, HeaderValue::from_static("artifactType"));
        }
        let last = page.items.last().map(|referrer| referrer.digest.as_str());
        Ok(self.with_link(response, &page, request.limit, last))
    }

    /// Adds where the next page is, as RFC 8288 writes it: the same request behind `last`.
    fn with_link<T>(
        &self,
        mut response: Response,
        page: &Page<T>,
        limit: u32,
        last: Option<&str>,
    ) -> Response {
        if let (true, Some(last)) = (page.more, last) {
            let mut query = form_urlencoded::Serializer::new(String::new());
            query.append_pair("n", &limit.to_string()).append_pair("last", last);
            if let Some(artifact_type) = self.query.get("artifactType") {
                query.append_pair("artifactType", artifact_type);
            }
            let link = format!("<{}?{}>; rel=\"next\"", self.parts.uri.path(), query.finish());
            response.headers_mut().insert(header::LINK, value(link));
        }
        response
    }
}

fn descriptor(referrer: &Referrer) -> Value {
    let mut descriptor = json!({
        "mediaType": referrer.media_type,
        "digest": referrer.digest.as_str(),
        "size": referrer.size,
    });
    if let Some(artifact_type) = &referrer.artifact_type {
        descriptor["artifactType"] = artifact_type.as_str().into();
    }
    let annotations = referrer.annotations.as_deref();
    if let Some(annotations) = annotations.and_then(|text| serde_json::from_str(text).ok()) {
        descriptor["annotations"] = annotations;
    }
    descriptor
}
