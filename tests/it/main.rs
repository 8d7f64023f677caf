//! One binary for all black-box tests, so that everything is linked once.

mod advisories;
mod advisories_clients;
mod advisories_reading;
mod backup;
mod broken_push;
mod config;
mod errors;
mod export;
mod foreign_issuer;
mod inventory;
mod limits;
mod lists;
mod manifests;
mod mounts;
mod oracle;
mod pull;
mod push;
mod races;
mod revocation;
mod tidy;
mod tls;
mod token_endpoint;
mod tokens;
