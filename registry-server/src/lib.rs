//! `registry-server`: the OCI distribution API from disk, for holders of Berth's tokens.
//!
//! A request goes down through the modules in this order, and knows less of HTTP at each step:
//! [`http`] parses and renders, `authz` turns credentials into a permit, [`registry`] acts,
//! [`metadata`] and [`storage`] keep. `issuer` is where tokens come from, and
//! `auth_client` talks to `auth-server`.

mod auth_client;
mod authz;
pub mod config;
pub mod data;
#[cfg(test)]
mod faults;
pub mod http;
mod issuer;
pub mod jobs;
mod maintenance;
pub mod metadata;
mod metrics;
#[cfg(test)]
#[path = "../../tests/plans/mod.rs"]
mod plans;
mod reach;
pub mod registry;
pub mod server;
#[cfg(test)]
mod statements;
pub mod storage;
pub mod transfer;

#[cfg(feature = "fuzzing")]
pub use http::fuzzing;
