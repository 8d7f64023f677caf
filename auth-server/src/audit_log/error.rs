//! What keeps the audit from being written.

use crate::{acl, files::FileError};

/// Why a step was not finished.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("writing the audit to the database")]
    Database(#[from] acl::Error),
    #[error("writing the file of the audit")]
    File(#[from] FileError),
    #[error("writing the file of the audit broke off: restart auth-server")]
    Broken,
}
