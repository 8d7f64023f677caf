//! `authctl key`: the keys that sign tokens.

use auth_server::{certs::signing_certificate, keys::SigningKeys};
use berth_shared::clock::Clock;
use clap::Subcommand;
use serde_json::json;

use crate::{
    report::{Failure, Report},
    site::Site,
};

#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Write certificates over the signing keys to standard output, for a registry that verifies
    /// tokens by a certificate bundle.
    Export,
}

pub(crate) fn run(site: &Site, verb: &Verb, clock: &Clock) -> Result<Report, Failure> {
    let Verb::Export = verb;
    let config = &site.config;
    let keys =
        SigningKeys::open(&config.keys(), config.key_algorithm, clock)?.with_ids(config.key_ids);
    let certificates: String = keys
        .files()
        .map(|(file, made)| signing_certificate(file, made))
        .collect::<Result<_, _>>()?;
    let data = json!({ "key_id": keys.active_id(), "certificates": certificates });
    Ok(Report::done(certificates.trim_end(), data))
}
