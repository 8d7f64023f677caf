//! The control socket: the jobs that a running server does for whoever may open it.
//!
//! A job is one JSON object, `POST`ed to [`JOBS_PATH`]; the answer is a line of JSON for each thing
//! that is told ([`event::Told`]). When the asker hangs up the job stops at its next step.

pub mod client;
pub mod event;
pub mod server;

use berth_shared::{name::RepositoryName, reference::Reference};
use serde::{Deserialize, Serialize};

use crate::registry::verify;

/// Where jobs are sent.
pub const JOBS_PATH: &str = "/jobs";

/// What a registry can be asked to do by whoever administers it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "job", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Job {
    /// Remove what nothing keeps alive.
    Collect {
        /// Only tell what would go.
        dry_run: bool,
    },
    /// Hash everything that is stored.
    Verify {
        /// How.
        options: verify::Options,
    },
    /// Delete a tag, a manifest, or a repository.
    Delete {
        /// The repository.
        repository: RepositoryName,
        /// Tag or digest; without one the whole repository.
        reference: Option<Reference>,
        /// Whether indexes may break that name the manifest.
        #[serde(default)]
        force: bool,
    },
    /// Delete no stored object until the asker hangs up.
    Hold,
    /// Take no pushes, or take them again.
    ReadOnly {
        /// Whether to take none.
        on: bool,
    },
}
