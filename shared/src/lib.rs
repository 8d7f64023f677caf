//! What Berth's two servers must agree on, bit for bit.
//!
//! Two halves, kept apart by a test.
//! The vocabulary ([`name`] to [`token`]) is pure: values with a grammar are parsed once into types with
//! private fields, and nothing there performs input or output.
//! The plumbing ([`serve`], [`client`], [`config`], [`files`], [`database`], [`sqlite`], [`file_stamp`], [`secret_lines`], [`link_secret`], [`telemetry`]) is what both binaries need verbatim.
//!
//! Tokens are verified here and minted in `auth-server` alone, so that the registry cannot mint.

pub mod action;
pub mod auth_api;
pub mod claimant;
pub mod claims;
pub mod client;
pub mod clock;
pub mod config;
pub mod crypto;
pub mod database;
pub mod digest;
pub mod error;
pub mod file_stamp;
pub mod files;
pub mod keys;
pub mod link_secret;
pub mod name;
pub mod pattern;
pub mod reference;
pub mod rights;
pub mod scope;
pub mod secrecy;
pub mod secret_lines;
pub mod serve;
pub mod shown;
pub mod sqlite;
pub mod subject;
pub mod tag;
pub mod telemetry;
pub mod text;
pub mod token;
pub mod unix_owner;
