//! Content on its way out of the registry and back: exports, backups, restoring.

pub mod backup;
mod directory;
mod error;
pub mod export;
mod layout;
mod quiet;
pub mod restore;

pub use error::Error;
