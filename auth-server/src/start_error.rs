//! Why the server does not start.

use std::path::PathBuf;

use berth_shared::{config::ConfigError, link_secret::LinkSecretError, serve::tls::TlsError};

use crate::{database, files::FileError, keys::KeyError, users::store::LoadError};

/// The server does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting makes no sense.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The database cannot be used.
    #[error(transparent)]
    Database(#[from] database::Error),
    /// A file or directory cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The signing keys cannot be used.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// The certificate of the link cannot be used.
    #[error("link")]
    Link(#[source] TlsError),
    /// The secret of the link cannot be used.
    #[error("link.secret_file: {error}; {mend}", error = .0, mend = mend(.0))]
    LinkSecret(#[from] LinkSecretError),
    /// A listener cannot be opened; the error says which.
    #[error(transparent)]
    Listen(#[from] std::io::Error),
    /// Another server uses the same data.
    #[error("another auth-server runs on {}: it holds {}", .0.display(), .0.join("lock").display())]
    Locked(PathBuf),
    /// The system gives no randomness.
    #[error("the system gives no randomness")]
    Randomness,
    /// The server of the database takes too long to say what its clock says.
    #[error("the database {0} takes longer than a second to answer, each time that it is asked")]
    Slow(String),
    /// The certificate of the public listener cannot be used.
    #[error("public")]
    Tls(#[from] TlsError),
    /// There are no users to begin with.
    #[error(transparent)]
    Users(#[from] LoadError),
}

fn mend(error: &LinkSecretError) -> &'static str {
    if error.is_forbidden() {
        "make it belong to the user that auth-server runs as"
    } else {
        "authctl link init makes what is missing"
    }
}
