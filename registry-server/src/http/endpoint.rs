//! The endpoints of the distribution specification, parsed from method and path, and the access
//! that each needs: the one table.
//!
//! Repository names hold slashes and end where the specification's words begin, so paths are
//! parsed from the right.

use axum::http::Method;
use berth_shared::{
    action::Action,
    auth_api::TOKEN_PATH,
    digest::Digest,
    name::RepositoryName,
    reference::{InvalidReference, Reference},
    serve::health::{HEALTHZ_PATH, READYZ_PATH},
};

use crate::{authz::access::Access, metadata::upload::UploadId};

/// What lies at a path, and what is done there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// end-1: `GET /v2/`.
    Ping,
    /// `GET` or `HEAD` of `/v2/_catalog`, of Docker's registry.
    Catalog,
    /// What is done to a repository.
    Repository(RepositoryName, Operation),
}

/// What is done to a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Operation {
    /// end-2: `GET` or `HEAD` of a blob.
    ReadBlob { digest: Digest },
    /// end-10: `DELETE` of a blob.
    DeleteBlob { digest: Digest },
    /// end-4a, end-4b, end-11: `POST` to begin an upload.
    StartUpload,
    /// end-13: `GET` of an upload session.
    UploadProgress { id: UploadId },
    /// end-5: `PATCH` of an upload session.
    AppendUpload { id: UploadId },
    /// end-6: `PUT` of an upload session.
    CommitUpload { id: UploadId },
    /// end-14: `DELETE` of an upload session.
    CancelUpload { id: UploadId },
    /// end-3: `GET` or `HEAD` of a manifest.
    ReadManifest { reference: Reference },
    /// end-7: `PUT` of a manifest.
    PutManifest { reference: Reference },
    /// end-9: `DELETE` of a manifest or tag.
    DeleteManifest { reference: Reference },
    /// end-8: `GET` or `HEAD` of the tags.
    Tags,
    /// end-12: `GET` or `HEAD` of the referrers.
    Referrers { digest: Digest },
}

/// A method and a path, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) endpoint: Endpoint,
    /// The methods that the path has, where the request's is none of them. Who may not do what
    /// `endpoint` says, which it has, is told nothing.
    pub(crate) not_allowed: Option<&'static str>,
}

/// Why a path is no endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotAnEndpoint {
    /// Nothing of the specification lies there.
    Path,
    /// The repository name is outside its grammar.
    Name,
    /// The digest is outside its grammar.
    Digest,
    /// The tag is outside its grammar.
    Tag,
    /// The upload id is outside its grammar.
    UploadId,
}

/// A path taken apart, before the method is looked at.
enum Resource<'p> {
    Ping,
    Catalog,
    Blob(&'p str, &'p str),
    Uploads(&'p str),
    Upload(&'p str, &'p str),
    Manifest(&'p str, &'p str),
    Tags(&'p str),
    Referrers(&'p str, &'p str),
}

impl<'p> Resource<'p> {
    fn parse(path: &'p str) -> Option<Self> {
        let rest = path.strip_prefix("/v2")?;
        if matches!(rest, "" | "/") {
            return Some(Self::Ping);
        }
        let rest = rest.strip_prefix('/')?;
        if rest == "_catalog" {
            return Some(Self::Catalog);
        }
        if let Some(name) = rest.strip_suffix("/tags/list") {
            return Some(Self::Tags(name));
        }
        if let Some(name) =
            rest.strip_suffix("/blobs/uploads/").or(rest.strip_suffix("/blobs/uploads"))
        {
            return Some(Self::Uploads(name));
        }
        let (before, last) = rest.rsplit_once('/')?;
        let (name, word) = before.rsplit_once('/')?;
        match word {
            "manifests" => Some(Self::Manifest(name, last)),
            "blobs" => Some(Self::Blob(name, last)),
            "referrers" => Some(Self::Referrers(name, last)),
            "uploads" => name.strip_suffix("/blobs").map(|name| Self::Upload(name, last)),
            _ => None,
        }
    }
}

/// Whether the path is the API's, be there such an endpoint or not.
pub(crate) fn is_of_api(path: &str) -> bool {
    path.strip_prefix("/v2").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The word in metrics for what a request asks for. It is one of a fixed set whatever the client
/// sends, and a path with a bad name counts under the endpoint that was meant.
pub(crate) fn word(method: &Method, path: &str) -> &'static str {
    let reads = matches!(*method, Method::GET | Method::HEAD);
    match (Resource::parse(path), method) {
        (None, _) if path == TOKEN_PATH => "token",
        (None, _) if [HEALTHZ_PATH, READYZ_PATH].contains(&path) => "health",
        (None, _) => "other",
        (Some(Resource::Ping), _) if reads => "ping",
        (Some(Resource::Catalog), _) if reads => "catalog",
        (Some(Resource::Tags(_)), _) if reads => "tags",
        (Some(Resource::Referrers(..)), _) if reads => "referrers",
        (Some(Resource::Blob(..)), _) if reads => "read_blob",
        (Some(Resource::Blob(..)), &Method::DELETE) => "delete_blob",
        (Some(Resource::Manifest(..)), _) if reads => "read_manifest",
        (Some(Resource::Manifest(..)), &Method::PUT) => "put_manifest",
        (Some(Resource::Manifest(..)), &Method::DELETE) => "delete_manifest",
        (Some(Resource::Uploads(_)), &Method::POST) => "start_upload",
        (Some(Resource::Upload(..)), _) if reads => "upload_progress",
        (Some(Resource::Upload(..)), &Method::PATCH) => "append_upload",
        (Some(Resource::Upload(..)), &Method::PUT) => "commit_upload",
        (Some(Resource::Upload(..)), &Method::DELETE) => "cancel_upload",
        (Some(_), _) => "other",
    }
}

fn name(text: &str) -> Result<RepositoryName, NotAnEndpoint> {
    text.parse().map_err(|_| NotAnEndpoint::Name)
}

/// Some clients write the colon of a digest as `%3A`; nothing else in a path needs an escape.
fn unescape(text: &str) -> String {
    text.replace("%3A", ":").replace("%3a", ":")
}

fn digest(text: &str) -> Result<Digest, NotAnEndpoint> {
    unescape(text).parse().map_err(|_| NotAnEndpoint::Digest)
}

fn reference(text: &str) -> Result<Reference, NotAnEndpoint> {
    unescape(text).parse().map_err(|error| match error {
        InvalidReference::Digest => NotAnEndpoint::Digest,
        InvalidReference::Tag => NotAnEndpoint::Tag,
    })
}

impl Line {
    /// Reads method and raw path.
    pub(crate) fn parse(method: &Method, path: &str) -> Result<Self, NotAnEndpoint> {
        let resource = Resource::parse(path).ok_or(NotAnEndpoint::Path)?;
        // What reads stands in for a method that there is not.
        let (repository, operation, methods) = match resource {
            Resource::Ping => return Ok(Self::of(Endpoint::Ping, READ, method)),
            Resource::Catalog => return Ok(Self::of(Endpoint::Catalog, READ, method)),
            Resource::Tags(repository) => (name(repository)?, Operation::Tags, READ),
            Resource::Referrers(repository, subject) => {
                let repository = name(repository)?;
                (repository, Operation::Referrers { digest: digest(subject)? }, READ)
            }
            Resource::Blob(repository, blob) => {
                let (repository, digest) = (name(repository)?, digest(blob)?);
                let operation = match *method {
                    Method::DELETE => Operation::DeleteBlob { digest },
                    _ => Operation::ReadBlob { digest },
                };
                (repository, operation, "GET, HEAD, DELETE")
            }
            Resource::Manifest(repository, text) => {
                let (repository, reference) = (name(repository)?, reference(text)?);
                let operation = match *method {
                    Method::PUT => Operation::PutManifest { reference },
                    Method::DELETE => Operation::DeleteManifest { reference },
                    _ => Operation::ReadManifest { reference },
                };
                (repository, operation, "GET, HEAD, PUT, DELETE")
            }
            Resource::Uploads(repository) => (name(repository)?, Operation::StartUpload, "POST"),
            Resource::Upload(repository, id) => {
                let repository = name(repository)?;
                let id = id.parse().map_err(|_| NotAnEndpoint::UploadId)?;
                let operation = match *method {
                    Method::PATCH => Operation::AppendUpload { id },
                    Method::PUT => Operation::CommitUpload { id },
                    Method::DELETE => Operation::CancelUpload { id },
                    _ => Operation::UploadProgress { id },
                };
                (repository, operation, "GET, PATCH, PUT, DELETE")
            }
        };
        Ok(Self::of(Endpoint::Repository(repository, operation), methods, method))
    }

    /// What is done to a repository, if something is.
    pub(crate) fn operation(&self) -> Option<&Operation> {
        match &self.endpoint {
            Endpoint::Repository(_, operation) if self.not_allowed.is_none() => Some(operation),
            _ => None,
        }
    }

    /// `endpoint`, if the method is among those of the path.
    fn of(endpoint: Endpoint, methods: &'static str, method: &Method) -> Self {
        let is_allowed = methods.split(", ").any(|allowed| allowed == method.as_str());
        Self { endpoint, not_allowed: (!is_allowed).then_some(methods) }
    }
}

/// The methods of what can be read alone.
const READ: &str = "GET, HEAD";

impl Endpoint {
    /// The access that the endpoint needs. `mount_source` is the `from` of a mount: the client
    /// should ask for it too, and goes on without it.
    pub(crate) fn access(&self, mount_source: Option<RepositoryName>) -> Access<'_> {
        let Self::Repository(name, operation) = self else {
            return if *self == Self::Ping { Access::AnyToken } else { Access::Catalog };
        };
        let is_start = *operation == Operation::StartUpload;
        let source = mount_source.filter(|from| is_start && from != name);
        Access::Repository { name, action: operation.action(), source }
    }
}

impl Operation {
    /// The right that it takes.
    fn action(&self) -> Action {
        match self {
            Self::ReadBlob { .. }
            | Self::ReadManifest { .. }
            | Self::Tags
            | Self::Referrers { .. } => Action::Pull,
            // Clients cancel an upload with the token that they upload with.
            Self::StartUpload
            | Self::UploadProgress { .. }
            | Self::AppendUpload { .. }
            | Self::CommitUpload { .. }
            | Self::CancelUpload { .. }
            | Self::PutManifest { .. } => Action::Push,
            Self::DeleteBlob { .. } | Self::DeleteManifest { .. } => Action::Delete,
        }
    }

    /// Whether it changes what is stored.
    pub(crate) fn writes(&self) -> bool {
        // To look how far an upload has come takes the right to go on with it.
        self.action() != Action::Pull && !matches!(self, Self::UploadProgress { .. })
    }

    /// The upload session that the request goes on with.
    pub(crate) fn session(&self) -> Option<&UploadId> {
        match self {
            Self::UploadProgress { id }
            | Self::AppendUpload { id }
            | Self::CommitUpload { id }
            | Self::CancelUpload { id } => Some(id),
            _ => None,
        }
    }

    /// The digest in the path, for the log.
    pub(crate) fn digest(&self) -> Option<&Digest> {
        match self {
            Self::ReadBlob { digest }
            | Self::DeleteBlob { digest }
            | Self::Referrers { digest }
            | Self::ReadManifest { reference: Reference::Digest(digest) }
            | Self::PutManifest { reference: Reference::Digest(digest) }
            | Self::DeleteManifest { reference: Reference::Digest(digest) } => Some(digest),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    const ID: &str = "0123456789abcdef0123456789abcdef";

    fn scope_of(method: &str, path: &str) -> Result<String, NotAnEndpoint> {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let line = Line::parse(&method, path)?;
        let scopes = line.endpoint.access(None).scopes();
        Ok(scopes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn every_endpoint_is_found_and_declares_its_access() {
        let pull = "repository:a/b:pull";
        let push = "repository:a/b:pull,push";
        let delete = "repository:a/b:delete";
        for (method, path, expected) in [
            ("GET", "/v2".to_owned(), ""),
            ("GET", "/v2/".to_owned(), ""),
            ("HEAD", "/v2/".to_owned(), ""),
            ("GET", "/v2/_catalog".to_owned(), "registry:catalog:*"),
            ("HEAD", "/v2/_catalog".to_owned(), "registry:catalog:*"),
            ("DELETE", "/v2/_catalog".to_owned(), "registry:catalog:*"),
            ("GET", format!("/v2/a/b/blobs/{SHA}"), pull),
            ("HEAD", format!("/v2/a/b/blobs/{SHA}"), pull),
            ("GET", format!("/v2/a/b/blobs/{}", SHA.replace(':', "%3A")), pull),
            ("DELETE", format!("/v2/a/b/blobs/{SHA}"), delete),
            ("POST", "/v2/a/b/blobs/uploads/".to_owned(), push),
            ("POST", "/v2/a/b/blobs/uploads".to_owned(), push),
            ("GET", format!("/v2/a/b/blobs/uploads/{ID}"), push),
            ("PATCH", format!("/v2/a/b/blobs/uploads/{ID}"), push),
            ("PUT", format!("/v2/a/b/blobs/uploads/{ID}"), push),
            ("DELETE", format!("/v2/a/b/blobs/uploads/{ID}"), push),
            ("GET", "/v2/a/b/manifests/v1".to_owned(), pull),
            ("HEAD", format!("/v2/a/b/manifests/{SHA}"), pull),
            ("PUT", "/v2/a/b/manifests/v1".to_owned(), push),
            ("DELETE", "/v2/a/b/manifests/v1".to_owned(), delete),
            ("GET", "/v2/a/b/tags/list".to_owned(), pull),
            ("HEAD", "/v2/a/b/tags/list".to_owned(), pull),
            ("GET", format!("/v2/a/b/referrers/{SHA}"), pull),
            ("HEAD", format!("/v2/a/b/referrers/{SHA}"), pull),
            ("POST", "/v2/a/b/manifests/v1".to_owned(), pull),
            ("GET", "/v2/a/b/blobs/uploads/".to_owned(), push),
            ("POST", format!("/v2/a/b/blobs/uploads/{ID}"), push),
        ] {
            assert_eq!(scope_of(method, &path).as_deref(), Ok(expected), "{method} {path}");
        }
    }

    #[test]
    fn metrics_tell_endpoints_apart_and_nothing_that_a_client_made_up() {
        let word =
            |method: &str, path: &str| word(&Method::from_bytes(method.as_bytes()).unwrap(), path);
        for (method, path, expected) in [
            ("GET", "/v2/".to_owned(), "ping"),
            ("GET", "/v2/_catalog".to_owned(), "catalog"),
            ("HEAD", format!("/v2/a/b/blobs/{SHA}"), "read_blob"),
            ("DELETE", format!("/v2/a/b/blobs/{SHA}"), "delete_blob"),
            ("POST", "/v2/a/b/blobs/uploads/".to_owned(), "start_upload"),
            ("GET", format!("/v2/a/b/blobs/uploads/{ID}"), "upload_progress"),
            ("PATCH", format!("/v2/a/b/blobs/uploads/{ID}"), "append_upload"),
            ("PUT", format!("/v2/a/b/blobs/uploads/{ID}"), "commit_upload"),
            ("DELETE", format!("/v2/a/b/blobs/uploads/{ID}"), "cancel_upload"),
            ("GET", "/v2/a/b/manifests/v1".to_owned(), "read_manifest"),
            ("GET", "/v2/A/manifests/%00".to_owned(), "read_manifest"),
            ("PUT", "/v2/a/b/manifests/v1".to_owned(), "put_manifest"),
            ("DELETE", "/v2/a/b/manifests/v1".to_owned(), "delete_manifest"),
            ("GET", "/v2/a/b/tags/list".to_owned(), "tags"),
            ("GET", format!("/v2/a/b/referrers/{SHA}"), "referrers"),
            ("POST", "/token".to_owned(), "token"),
            ("GET", "/readyz".to_owned(), "health"),
            ("ROBOT", "/v2/a/manifests/v1".to_owned(), "other"),
            ("GET", "/wp-login.php".to_owned(), "other"),
        ] {
            assert_eq!(word(method, &path), expected, "{method} {path}");
        }
    }

    #[test]
    fn names_that_hold_the_specifications_words_are_parsed_from_the_right() {
        for name in ["a/blobs/b", "blobs/uploads", "manifests", "tags/list", "a/referrers"] {
            let expected = format!("repository:{name}:pull");
            let found = scope_of("GET", &format!("/v2/{name}/manifests/v1"));
            assert_eq!(found.as_deref(), Ok(expected.as_str()), "{name}");
            let found = scope_of("GET", &format!("/v2/{name}/tags/list"));
            assert_eq!(found.as_deref(), Ok(expected.as_str()), "{name}");
        }
    }

    #[test]
    fn what_is_no_endpoint_says_why() {
        for (method, path, expected) in [
            ("GET", "/v2/a", NotAnEndpoint::Path),
            ("GET", "/v2/a/b/c", NotAnEndpoint::Path),
            ("GET", "/v2//manifests/v1", NotAnEndpoint::Name),
            ("GET", "/v2/A/manifests/v1", NotAnEndpoint::Name),
            ("GET", "/v2/a/../b/manifests/v1", NotAnEndpoint::Name),
            ("GET", "/v2/a%2fb/manifests/v1", NotAnEndpoint::Name),
            ("GET", "/v2/a%00/tags/list", NotAnEndpoint::Name),
            ("GET", "/v2/a/manifests/sha256:abc", NotAnEndpoint::Digest),
            ("GET", "/v2/a/manifests/.x", NotAnEndpoint::Tag),
            ("GET", "/v2/a/blobs/latest", NotAnEndpoint::Digest),
            ("GET", "/v2/a/referrers/latest", NotAnEndpoint::Digest),
            ("PATCH", "/v2/a/blobs/uploads/x", NotAnEndpoint::UploadId),
        ] {
            assert_eq!(scope_of(method, path), Err(expected), "{method} {path}");
        }
    }
}
