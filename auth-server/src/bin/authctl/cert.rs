//! `authctl cert`: the server's certificate.

use std::path::PathBuf;

use auth_server::{
    admin::Admin,
    certs::{CertError, CertificateFiles, Found},
    host::{Host, InvalidHost},
};
use berth_shared::{clock::Clock, unix_owner::Identity};
use clap::{Args, Subcommand};
use serde_json::json;

use crate::report::{Failure, Report, Told, warn};

#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Make a CA and a server certificate, where there is none.
    Init {
        /// The names and addresses by which clients reach the registry, by comma.
        #[arg(long, env = "BERTH_HOST", value_name = "LIST", required = true, value_parser = hosts)]
        host: Box<[Host]>,
        #[command(flatten)]
        place: Place,
    },
    /// Make the server's certificate again, under the same CA; the server takes it into use by
    /// itself.
    Renew {
        /// Other names and addresses than now, by comma.
        #[arg(long, value_name = "LIST", value_parser = hosts)]
        host: Option<Box<[Host]>>,
        #[command(flatten)]
        place: Place,
    },
}

#[derive(Args)]
pub(crate) struct Place {
    /// The directory of server.pem and server.key [default: where init put them]
    #[arg(long, env = "BERTH_CERTS", value_name = "DIR")]
    certs: Option<PathBuf>,
    /// The directory of ca.key [default: that of the certificate, or where init --split put it]
    #[arg(long, value_name = "DIR")]
    ca: Option<PathBuf>,
    /// Say what would be done, and do nothing.
    #[arg(long)]
    dry_run: bool,
}

/// Reads names and addresses by comma; nothing at all is an empty list.
pub(crate) fn hosts(text: &str) -> Result<Box<[Host]>, InvalidHost> {
    text.split(',').map(str::trim).filter(|word| !word.is_empty()).map(str::parse).collect()
}

impl Place {
    fn files(&self, admin: Option<&Admin>) -> CertificateFiles {
        let given = self.certs.clone().filter(|certs| !certs.as_os_str().is_empty());
        let set = admin.and_then(|admin| admin.config.certificates.as_ref());
        if let (None, Some(set)) = (&given, set) {
            let ca = self.ca.as_ref().unwrap_or(&set.ca).clone();
            return CertificateFiles { ca, certs: set.certs.clone() };
        }
        // `init --split` puts the CA beside the data of auth-server.
        let beside = admin.and_then(|admin| admin.config.data.canonicalize().ok());
        let split = beside.and_then(|data| data.parent().map(PathBuf::from));
        let split = split.filter(|folder| folder.join("ca").is_dir());
        let own = split.as_ref().map(|folder| folder.join("certs"));
        let certs = given.or(own).unwrap_or_else(|| "certs".into());
        let ca = self.ca.clone().or_else(|| split.map(|folder| folder.join("ca")));
        let certs = certs.canonicalize().unwrap_or(certs);
        CertificateFiles { ca: ca.unwrap_or_else(|| certs.clone()), certs }
    }
}

pub(crate) fn run(verb: &Verb, admin: Option<&Admin>) -> Told {
    let clock = Clock::system();
    let (place, hosts, is_renewal) = match verb {
        Verb::Init { host, place } => (place, Some(host), false),
        Verb::Renew { host, place } => (place, host.as_ref(), true),
    };
    let files = place.files(admin);
    Identity::of(&files.certs)?.become_for_good()?;
    let hosts = hosts.filter(|hosts| !hosts.is_empty()).map(|hosts| hosts.to_vec());
    let (pem, key) = (files.server_pem(), files.ca_key());
    let shown = pem.display();
    let hosts = match (files.find(&clock)?, is_renewal) {
        (Found::Own { .. }, true) if !key.exists() => {
            return Err(Failure::refused(format!(
                "there is no {}, the key of the CA that is to sign: put it back, or say with --ca \
                 DIR where it lies; if {shown} was not made by Berth, renew it where it came from",
                key.display()
            )));
        }
        (Found::Own { .. }, _) => return Err(CertError::Owned(pem).into()),
        (Found::Missing, true) => {
            return Err(Failure::refused(format!(
                "there is no {shown}; to make one: authctl cert init --host reg.example.lan"
            )));
        }
        (Found::Berths { .. }, false) => {
            return Err(Failure::refused(format!(
                "there is a certificate at {shown} already; for a new one: authctl cert renew"
            )));
        }
        (Found::Berths { hosts: old, .. }, true) => {
            if hosts.as_ref().is_some_and(|hosts| *hosts != old) {
                warn(
                    "clients are sent to the names of public_urls in registry.toml, which stay as \
                     they are; authctl init --host LIST changes both",
                );
            }
            hosts.unwrap_or(old)
        }
        (Found::Missing, false) => hosts.ok_or_else(|| Failure::usage("--host names no host"))?,
    };
    let (dry_run, ca) = (place.dry_run, files.ca_pem());
    if !dry_run {
        files.issue(&hosts, &clock)?;
    }
    let verb = if dry_run { "would write" } else { "wrote" };
    let names = hosts.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let text = format!("{verb} {shown} for {names}, issued by {}", ca.display());
    let json = json!({ "certificate": pem, "ca": ca, "hosts": hosts, "dry_run": dry_run });
    Ok(Report::done(text, json))
}
