//! What an import tells while it runs: to people on a terminal, to programs as JSON lines.

use std::sync::Arc;

use serde::Serialize;

/// A step of an import.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// Something that is left behind, or is not as it should be.
    Problem {
        /// Where, as a path below the old store's root.
        place: String,
        /// What is wrong there.
        what: String,
        /// What is left behind by it: `repository:tag`, or `repository@digest` without a tag.
        images: Vec<String>,
    },
    /// How far it has come.
    Progress {
        /// Bytes that were looked after.
        bytes_done: u64,
        /// Bytes in all.
        bytes_total: u64,
    },
    /// The import is through.
    Imported(Summary),
}

/// What an import did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Repositories that the old store has.
    pub repositories: u64,
    /// Manifests that were taken.
    pub manifests: u64,
    /// Tags that were set.
    pub tags: u64,
    /// Blobs that were taken.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Manifests and tags that were there already.
    pub present: u64,
    /// Manifests and tags that were left behind.
    pub skipped: u64,
    /// Problems that were told.
    pub problems: u64,
    /// How long it took, in milliseconds.
    pub millis: u64,
}

/// Who is told.
pub type Tell = Arc<dyn Fn(Event) + Send + Sync>;
