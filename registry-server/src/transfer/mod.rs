//! Content that comes and goes other than by the API: imports, exports, backups, restoring.

pub mod backup;
mod blobs;
mod copying;
mod directory;
mod error;
pub mod export;
pub mod import;
mod layout;
mod quiet;
pub mod restore;

pub use error::Error;
