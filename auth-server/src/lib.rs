//! Berth's auth server: checks htpasswd credentials and issues scoped bearer tokens under
//! per-repository grants.
//!
//! - [`config`] is `auth.toml`
//! - [`users`] are who may sign in, and the password check
//! - [`audit`] is what happened, and [`audit_log`] brings it to a table and to files of JSON lines
//! - [`database`] is what is allowed and what was taken away, in the database
//! - [`secrets`] are those that Berth makes: what a robot signs in with, and what a client may keep in
//!   place of a password
//! - [`trust`] says which tokens of other issuers machines may sign in with
//! - [`issue`] decides what a token says
//! - [`keys`] are the signing keys; nothing else in Berth can sign
//! - [`server`] is the order of steps that leads to a token, `sign_in` the one that says whose it is
//! - [`run`] has listeners, lock and shutdown
//! - [`backup`] copies all that to a directory and back
//! - [`admin`] is what an administrator does, for `authctl`
//! - [`certs`], [`host`], [`link_files`] and [`files`] are for `authctl`, which works on the same files; `renewal`
//!   makes Berth's certificate again before it expires
//!
//! A request's way: `http/token.rs` reads parameters and credentials, [`server`] takes the steps,
//! `http/error.rs` says no.

pub mod admin;
pub mod audit;
pub mod audit_log;
pub mod backup;
pub mod certs;
pub mod config;
pub mod database;
pub mod files;
pub mod host;
mod http;
pub mod issue;
pub mod keys;
pub mod link_files;
mod metrics;
#[cfg(test)]
#[path = "../../tests/plans/mod.rs"]
mod plans;
pub mod random;
mod renewal;
pub mod run;
pub mod secrets;
pub mod server;
mod sign_in;
mod start_error;
#[cfg(test)]
mod statements;
pub mod trust;
pub mod users;

#[cfg(feature = "fuzzing")]
pub use http::fuzzing;
pub use run::Bound;
pub use server::AuthServer;
pub use start_error::StartError;
