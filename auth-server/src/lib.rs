//! Berth's auth server: checks htpasswd credentials and issues scoped bearer tokens under
//! per-repository grants.
//!
//! - [`config`] is `auth.toml`
//! - [`users`] are who may sign in, and the password check
//! - [`audit`] is what happened: a table, and a file of JSON lines
//! - [`acl`] is what is allowed and what was taken away, in the database
//! - [`opaque`] is the form of the secrets that Berth makes, [`robot_secret`] what a robot signs in with
//! - [`refresh_token`] is what a client may keep in place of a password, where that is on
//! - [`trust`] says which tokens of other issuers machines may sign in with
//! - [`issue`] decides what a token says
//! - [`keys`] are the signing keys; nothing else in Berth can sign
//! - [`server`] is the order of steps that leads to a token, `sign_in` the one that says whose it is
//! - `notes` writes down, now and then, what was used to sign in
//! - [`run`] has listeners, lock and shutdown
//! - [`backup`] copies all that to a directory and back
//! - [`certs`], [`host`] and [`files`] are for `authctl`, which works on the same files; `renewal`
//!   makes Berth's certificate again before it expires
//!
//! A request's way: `http/token.rs` reads parameters and credentials, [`server`] takes the steps,
//! `http/error.rs` says no.

pub mod acl;
pub mod audit;
pub mod backup;
pub mod certs;
pub mod config;
pub mod files;
pub mod host;
mod http;
pub mod issue;
pub mod keys;
mod notes;
pub mod opaque;
#[cfg(test)]
#[path = "../../tests/plans/mod.rs"]
mod plans;
pub mod random;
pub mod refresh_token;
mod renewal;
pub mod robot_secret;
pub mod run;
mod series;
pub mod server;
mod sign_in;
#[cfg(test)]
mod statements;
pub mod trust;
pub mod users;

#[cfg(feature = "fuzzing")]
pub use http::fuzzing;
pub use run::{Bound, start};
pub use server::AuthServer;

use std::path::PathBuf;

/// The server does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting makes no sense.
    #[error(transparent)]
    Config(#[from] berth_shared::config::ConfigError),
    /// The database cannot be used.
    #[error(transparent)]
    Database(#[from] acl::Error),
    /// A file or directory cannot be used.
    #[error(transparent)]
    File(#[from] files::FileError),
    /// The signing keys cannot be used.
    #[error(transparent)]
    Keys(#[from] keys::KeyError),
    /// A listener cannot be opened; the error says which.
    #[error(transparent)]
    Listen(std::io::Error),
    /// Another server uses the same data.
    #[error("another auth-server runs on {}: it holds {}", .0.display(), .0.join("lock").display())]
    Locked(PathBuf),
    /// The system gives no randomness.
    #[error("the system gives no randomness")]
    Randomness,
    /// The certificate of the public listener cannot be used.
    #[error("public")]
    Tls(#[from] berth_shared::serve::tls::TlsError),
    /// There are no users to begin with.
    #[error(transparent)]
    Users(#[from] users::store::LoadError),
}
