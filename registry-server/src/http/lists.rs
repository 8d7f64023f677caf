//! Lists over HTTP: tags (end-8), the catalog, referrers (end-12), with `Link` to the next page.

use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::Response,
};
use berth_shared::{digest::Digest, serve::budget::Reservation, tag::Tag};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, future, stream};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{body::in_pieces, call::Call, error::Answer, json as json_response, value};
use crate::{
    authz::permit::Permit,
    metadata::referrer::Referrer,
    registry::{
        self,
        list::{Page, REFERRERS_COPIES, TAGS_BYTES_MAX},
    },
};

pub(super) const FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");

/// The exact type that referrers must be listed with.
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

#[derive(Serialize)]
struct Tags<'a> {
    name: &'a str,
    tags: Vec<&'a str>,
}

#[derive(Serialize)]
struct Catalog<'a> {
    repositories: Vec<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor<'a> {
    media_type: &'a str,
    digest: &'a str,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    artifact_type: Option<&'a str>,
    /// As they were pushed.
    #[serde(skip_serializing_if = "Option::is_none")]
    annotations: Option<&'a RawValue>,
}

impl<'a> Descriptor<'a> {
    fn of(referrer: &'a Referrer) -> Self {
        let annotations = referrer.annotations.as_deref();
        Self {
            media_type: &referrer.media_type,
            digest: referrer.digest.as_str(),
            size: referrer.size,
            artifact_type: referrer.artifact_type.as_deref(),
            annotations: annotations.and_then(|text| serde_json::from_str(text).ok()),
        }
    }
}

impl Call<'_> {
    pub(super) async fn tags(&self, permit: &Permit) -> Answer {
        if self.query.limit()?.is_none() {
            return self.all_tags(permit).await;
        }
        let request = self.query.page()?;
        let memory = self.shares().memory;
        let page = self.app.registry.lists.tags(permit, &request, &memory).await?;
        Ok(self.page_of_tags(permit, page, Some(request.limit)))
    }

    fn page_of_tags(&self, permit: &Permit, page: Page<Tag>, limit: Option<u32>) -> Response {
        let tags = page.items.iter().map(|tag| tag.as_str()).collect();
        let body = text(&Tags { name: permit.repository().as_str(), tags });
        self.list(body, page.room, limit, page.next.as_deref())
    }

    /// All tags, written as they are read where they are more than a page.
    async fn all_tags(&self, permit: &Permit) -> Answer {
        let (registry, last) = (&self.app.registry, self.query.last());
        let list = registry.lists.all_tags(permit, last, self.claimant, TAGS_BYTES_MAX).await?;
        if list.first.next.is_none() {
            return Ok(self.page_of_tags(permit, list.first, None));
        }
        // The list of none, taken apart: `{"name":"…","tags":[` and `]}`.
        let mut begin = text(&Tags { name: permit.repository().as_str(), tags: Vec::new() });
        let end = begin.split_off(begin.len() - 2);
        let first = part_of_tags(begin, "", list.first);
        let rest = list.rest.map_ok(|page| part_of_tags(Vec::new(), ",", page));
        let parts = stream::once(future::ready(Ok(first))).chain(rest);
        let parts = parts.chain(stream::once(future::ready(Ok(Bytes::from(end)))));
        let response = json_response(StatusCode::OK, Body::from_stream(parts));
        Ok(self.linked(response, None, list.next.as_deref()))
    }

    pub(super) async fn catalog(&self) -> Answer {
        let request = self.query.page()?;
        let rights = self.app.authorizer.rights_to_list(self.token).await;
        let rights = rights.ok_or(registry::Error::RightsUnavailable)?;
        let memory = self.shares().memory;
        let page = self.app.registry.lists.catalog(&rights, &request, &memory).await?;
        let repositories = page.items.iter().map(|name| name.as_str()).collect();
        let body = text(&Catalog { repositories });
        Ok(self.list(body, page.room, Some(request.limit), page.next.as_deref()))
    }

    pub(super) async fn referrers(&self, permit: &Permit, subject: &Digest) -> Answer {
        let request = self.query.page()?;
        let artifact_type = self.query.artifact_type();
        let memory = self.shares().memory;
        let wanted = artifact_type.as_deref();
        let page = self.app.registry.lists.referrers(permit, subject, wanted, &request, &memory);
        let page = page.await?;
        // The rest of the room is the referrers', each of which goes once it is written down.
        let mut body = Vec::with_capacity(page.room.amount() / REFERRERS_COPIES);
        body.extend(format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":["#).bytes());
        for (n, referrer) in page.items.into_iter().enumerate() {
            body.extend(if n > 0 { "," } else { "" }.bytes());
            write(&mut body, &Descriptor::of(&referrer));
        }
        body.extend(b"]}");
        let next = page.next.as_deref();
        let mut response = self.list(body, page.room, Some(request.limit), next);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(INDEX));
        if artifact_type.is_some() {
            headers.insert(FILTERS_APPLIED, HeaderValue::from_static("artifactType"));
        }
        Ok(response)
    }

    /// A page of a list.
    fn list(
        &self,
        body: Vec<u8>,
        room: Reservation,
        limit: Option<u32>,
        next: Option<&str>,
    ) -> Response {
        let response = json_response(StatusCode::OK, in_pieces(held(body, room)));
        self.linked(response, limit, next)
    }

    /// Says where the next page is, as RFC 8288 writes it: the same request behind `next`.
    fn linked(&self, mut response: Response, limit: Option<u32>, next: Option<&str>) -> Response {
        if let Some(next) = next {
            let mut query = form_urlencoded::Serializer::new(String::new());
            if let Some(limit) = limit {
                query.append_pair("n", &limit.to_string());
            }
            query.append_pair("last", next);
            if let Some(artifact_type) = self.query.artifact_type() {
                query.append_pair("artifactType", &artifact_type);
            }
            let link = format!("<{}?{}>; rel=\"next\"", self.parts.uri.path(), query.finish());
            response.headers_mut().insert(header::LINK, value(link));
        }
        response
    }
}

/// Some of a list of tags, behind `text`; `comma` stands before the first of them.
fn part_of_tags(mut text: Vec<u8>, mut comma: &str, page: Page<Tag>) -> Bytes {
    for tag in &page.items {
        text.extend(comma.bytes());
        write(&mut text, &tag.as_str());
        comma = ",";
    }
    held(text, page.room)
}

/// Ties the room to the text that it is for.
fn held(mut text: Vec<u8>, mut room: Reservation) -> Bytes {
    text.shrink_to_fit();
    room.shrink(text.len());
    room.hold(text)
}

/// What a page says, as JSON.
fn text(page: &impl Serialize) -> Vec<u8> {
    let mut body = Vec::new();
    write(&mut body, page);
    body
}

fn write(body: &mut Vec<u8>, part: &impl Serialize) {
    // Nothing in a list cannot be written, and a vector takes all.
    let _ = serde_json::to_writer(body, part);
}
