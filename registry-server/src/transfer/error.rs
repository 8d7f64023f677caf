//! Why content does not go where it was to go.

use std::{io, path::Path};

use berth_shared::unix_owner;

use crate::{data::StartError, metadata, registry, storage};

/// Why a transfer was refused or broke off.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It would do harm, or cannot be done; the text says what to do.
    #[error("{0}")]
    Refused(String),
    /// A file cannot be read or written.
    #[error("{what}")]
    Io {
        /// What was being done, and to which file.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// Root does not go there.
    #[error(transparent)]
    Owner(#[from] unix_owner::Error),
    /// The data directory cannot be used.
    #[error(transparent)]
    Data(#[from] StartError),
    /// The registry's own error.
    #[error(transparent)]
    Registry(#[from] registry::Error),
}

impl From<metadata::Error> for Error {
    fn from(error: metadata::Error) -> Self {
        match error {
            // These two say by themselves what to do.
            metadata::Error::Newer | metadata::Error::Older => Self::Refused(error.to_string()),
            error => Self::Registry(error.into()),
        }
    }
}

impl From<storage::Error> for Error {
    fn from(error: storage::Error) -> Self {
        match error {
            storage::Error::Full => Self::Refused("no room is left where it goes".to_owned()),
            error => Self::Registry(error.into()),
        }
    }
}

/// Says of a failure what was being done to which file.
pub(super) fn doing(what: &str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let what = format!("{what} {}", path.display());
    move |source| Error::Io { what, source }
}
