//! What the fuzz targets call: thin doors to parsers and a writer that are private otherwise.
//!
//! Compiled with the feature `fuzzing` alone, which changes nothing else.

use std::{net::IpAddr, ops::Range};

use axum::http::{HeaderMap, HeaderValue, Method};
use berth_shared::{
    clock::UnixSeconds, digest::Digest, name::RepositoryName, scope::Scope, tag::Tag,
};
use bytes::Bytes;

/// The types that the targets speak in.
pub use berth_shared as shared;

use super::{
    client_address::behind_proxies,
    endpoint::{self, Line, Operation},
    error,
    query::Query,
    range::{self, Wanted},
    value,
};
use crate::{config, registry::manifest_content};

/// A request that was understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint(endpoint::Endpoint);

impl Endpoint {
    /// Reads method and raw path.
    ///
    /// # Errors
    /// The methods that the path has, where only the method is wrong; else `None`.
    pub fn parse(method: &Method, path: &str) -> Result<Self, Option<&'static str>> {
        let line = Line::parse(method, path).map_err(|_| None)?;
        match line.not_allowed {
            None => Ok(Self(line.endpoint)),
            allowed => Err(allowed),
        }
    }

    /// The path as Berth would write it.
    #[must_use]
    pub fn path(&self) -> String {
        use endpoint::Endpoint as E;
        match &self.0 {
            E::Ping => "/v2/".to_owned(),
            E::Catalog => "/v2/_catalog".to_owned(),
            E::Repository(name, operation) => format!("/v2/{name}/{}", below(operation)),
        }
    }

    /// The repository that a right is needed on.
    #[must_use]
    pub fn repository(&self) -> Option<RepositoryName> {
        self.0.access(None).repository().cloned()
    }

    /// The scopes that a client is told to ask a token for.
    #[must_use]
    pub fn scopes(&self, query: Option<&str>) -> Vec<Scope> {
        self.0.access(Query::parse(query).mount_source()).scopes()
    }
}

/// The rest of a path behind its repository.
fn below(operation: &Operation) -> String {
    use Operation as O;
    match operation {
        O::ReadBlob { digest } | O::DeleteBlob { digest } => format!("blobs/{digest}"),
        O::StartUpload => "blobs/uploads/".to_owned(),
        O::UploadProgress { id }
        | O::AppendUpload { id }
        | O::CommitUpload { id }
        | O::CancelUpload { id } => format!("blobs/uploads/{id}"),
        O::ReadManifest { reference }
        | O::PutManifest { reference }
        | O::DeleteManifest { reference } => format!("manifests/{reference}"),
        O::Tags => "tags/list".to_owned(),
        O::Referrers { digest } => format!("referrers/{digest}"),
    }
}

/// `n` and `last` of a query, where `n` is readable.
#[must_use]
pub fn page(query: Option<&str>) -> Option<(u32, String)> {
    Query::parse(query).page().ok().map(|page| (page.limit, page.last))
}

/// `tag` of a query, where all of them are tags.
#[must_use]
pub fn tags(query: Option<&str>) -> Option<Vec<Tag>> {
    Query::parse(query).tags().ok()
}

/// The bytes that a `Range` header asks of content of `size` bytes: none of them where it cannot
/// be satisfied, `None` where it is ignored.
#[must_use]
pub fn ranges(text: &str, size: u64) -> Option<Vec<Range<u64>>> {
    match range::wanted(text, size) {
        Wanted::Whole => None,
        Wanted::Parts(parts) => Some(parts),
        Wanted::Nothing => Some(Vec::new()),
    }
}

/// First and last byte of a `Content-Range` header.
#[must_use]
pub fn content_range(text: &str) -> Option<(u64, u64)> {
    range::chunk(text).map(|range| (range.first, range.last))
}

/// Whom a request comes from, whose peer stands in one of the networks that are trusted or does not.
/// `None` where one of them is no network.
#[must_use]
pub fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &[&str]) -> Option<IpAddr> {
    let trusted = trusted.iter().map(|net| config::network(net)).collect::<Option<Vec<_>>>()?;
    Some(behind_proxies(peer, headers, &trusted))
}

/// What was read from a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The media type that was settled on.
    pub media_type: String,
    /// The bytes to be stored.
    pub bytes: Bytes,
    /// What referrers are listed by.
    pub artifact_type: Option<String>,
    /// What it is about.
    pub subject: Option<Digest>,
    /// The annotations of a referrer, a JSON object.
    pub annotations: Option<String>,
    /// Everything named, and whether it must be there.
    pub references: Vec<(Digest, bool)>,
}

/// Reads a manifest as a push does. `None` when it is refused.
#[must_use]
pub fn manifest(
    digest: Digest,
    media_type: Option<&str>,
    bytes: Bytes,
    sparse: bool,
) -> Option<Manifest> {
    let new =
        manifest_content::read_manifest(digest, media_type, bytes, sparse, UnixSeconds::default())
            .ok()?;
    Some(Manifest {
        media_type: new.manifest.media_type,
        bytes: new.manifest.bytes,
        artifact_type: new.artifact_type,
        subject: new.subject,
        annotations: new.annotations,
        references: new
            .references
            .into_iter()
            .map(|named| (named.digest, named.required))
            .collect(),
    })
}

/// Whether the configuration takes `text` as the name of the service.
#[must_use]
pub fn is_service(text: &str) -> bool {
    config::is_service(text)
}

/// Whether the configuration takes `text` as the realm of a foreign issuer.
#[must_use]
pub fn is_realm(text: &str) -> bool {
    config::is_realm(text, true)
}

/// The `WWW-Authenticate` header of a refusal.
#[must_use]
pub fn challenge(realm: &str, service: &str, scopes: &[Scope], error: Option<&str>) -> HeaderValue {
    value(error::challenge(realm, service, scopes, error))
}
