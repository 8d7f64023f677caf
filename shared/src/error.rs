//! The error body of the distribution specification: `{"errors":[{"code","message","detail"}]}`.

use serde::Serialize;
use serde_json::Value;

/// The codes of the specification ("Error codes"), and the few that it leaves to registries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Code {
    /// code-1: blob unknown to the registry.
    BlobUnknown,
    /// code-2: blob upload invalid.
    BlobUploadInvalid,
    /// code-3: blob upload unknown to the registry.
    BlobUploadUnknown,
    /// code-4: the digest does not match the content, or is no digest.
    DigestInvalid,
    /// code-5: a manifest names a blob that the repository lacks.
    ManifestBlobUnknown,
    /// code-6: manifest invalid.
    ManifestInvalid,
    /// code-7: manifest unknown to the repository.
    ManifestUnknown,
    /// code-8: invalid repository name.
    NameInvalid,
    /// code-9: repository name not known.
    NameUnknown,
    /// code-10: the length does not match the content.
    SizeInvalid,
    /// code-11: authentication required, or not enough of it.
    Unauthorized,
    /// code-12: refused by policy; a new token would not help.
    Denied,
    /// code-13: the operation is not supported.
    Unsupported,
    /// code-14: too many requests.
    #[serde(rename = "TOOMANYREQUESTS")]
    TooManyRequests,
    /// Not in the specification: a page size or marker that cannot be read.
    PaginationNumberInvalid,
    /// Not in the specification: the server failed; the log has the reason.
    Unknown,
    /// Not in the specification: try again later.
    Unavailable,
}

/// An error as clients read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ErrorBody {
    errors: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Entry {
    code: Code,
    message: String,
    detail: Value,
}

impl ErrorBody {
    /// A body with one error.
    pub fn new(code: Code, message: impl Into<String>, detail: Value) -> Self {
        Self { errors: vec![Entry { code, message: message.into(), detail }] }
    }

    /// The same error once for each detail, as for every missing blob of a manifest.
    pub fn for_each(code: Code, message: &str, details: impl IntoIterator<Item = Value>) -> Self {
        let entry = |detail| Entry { code, message: message.to_owned(), detail };
        Self { errors: details.into_iter().map(entry).collect() }
    }

    /// The body as JSON.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}
