//! `authctl init`: makes what is missing, and leaves what is there.
//!
//! Every step looks first and writes one file at a time, whole, so that a run that was killed is
//! completed by the next. The user comes last: as long as there is no htpasswd file, the next run
//! makes the user and prints the password.

mod certificate;
mod layout;
mod next;
mod people;
mod settings;
mod urls;

use std::{net::SocketAddr, path::PathBuf};

use auth_server::{admin::Admin, audit::Author, files, host::Host};
use berth_shared::clock::Clock;
use clap::Args;
use serde_json::json;

use crate::{
    cert::hosts,
    report::{Failure, Report, Told},
};
use layout::Layout;

#[derive(Args)]
#[command(after_help = include_str!("../help/init.txt"))]
pub(crate) struct Arguments {
    /// The directory for settings, users and data [default: data]
    #[arg(long, env = "BERTH_DATA", value_name = "DIR")]
    data: Option<PathBuf>,
    /// The directory of certificates [default: certs, with --split that of the data]
    #[arg(long, env = "BERTH_CERTS", value_name = "DIR")]
    certs: Option<PathBuf>,
    /// The names and addresses by which clients reach the registry, by comma [first run: localhost]
    #[arg(long, env = "BERTH_HOST", value_name = "LIST", value_parser = hosts)]
    host: Option<Box<[Host]>>,
    /// The port in the registry's URLs, and to listen on [first run: 5000]
    #[arg(long, env = "BERTH_PORT", value_name = "PORT", value_parser = port)]
    port: Option<Port>,
    /// The address to listen on [first run: `[::]`, which is every address of IPv4 and IPv6, and the
    /// port]
    #[arg(long, value_name = "ADDRESS", value_parser = listen)]
    listen: Option<SocketAddr>,
    /// The first user's name [default: andrew]
    #[arg(long, env = "BERTH_USER", value_name = "NAME")]
    user: Option<String>,
    /// Read the first user's password as one line from standard input.
    #[arg(long)]
    password_stdin: bool,
    /// Make no user.
    #[arg(long, conflicts_with = "password_stdin")]
    no_user: bool,
    /// Take over the users of this htpasswd file; every one of them may do everything, as before.
    #[arg(long, value_name = "FILE")]
    htpasswd: Option<PathBuf>,
    /// One directory per server, so that the registry can be kept from keys and passwords.
    #[arg(long)]
    split: bool,
    /// With --split: the directory of auth.toml and registry.toml [default: each server's own]
    #[arg(long, value_name = "DIR", requires = "split")]
    config_dir: Option<PathBuf>,
    /// Say what would be made, and make nothing.
    #[arg(long)]
    dry_run: bool,
}

/// A port, or nothing: an environment variable that is set to nothing counts as unset.
type Port = Option<u16>;

fn port(text: &str) -> Result<Port, String> {
    match text.parse() {
        _ if text.is_empty() => Ok(None),
        Ok(0) => Err("port 0 cannot stand in a URL".to_owned()),
        Ok(port) => Ok(Some(port)),
        Err(_) => Err("write a port from 1 to 65535, such as 5000".to_owned()),
    }
}

fn listen(text: &str) -> Result<SocketAddr, String> {
    let help = "write an address with its port, such as [::]:5000 or 127.0.0.1:5000";
    text.parse().map_err(|_| help.to_owned())
}

impl Arguments {
    /// The directory for settings, users and data.
    pub(crate) fn data(&self) -> PathBuf {
        given(self.data.as_ref()).unwrap_or_else(|| "data".into())
    }
}

fn given(path: Option<&PathBuf>) -> Option<PathBuf> {
    path.filter(|path| !path.as_os_str().is_empty()).cloned()
}

/// What has been made, or would be.
struct Steps {
    is_dry: bool,
    lines: Vec<String>,
}

impl Steps {
    /// Notes a step; whether it is to be done now.
    fn begin(&mut self, what: impl Into<String>) -> bool {
        let verb = if self.is_dry { "would make " } else { "made " };
        self.lines.push(format!("{verb}{}", what.into()));
        !self.is_dry
    }

    /// Notes something that is not a step.
    fn remark(&mut self, what: impl Into<String>) {
        self.lines.push(what.into());
    }
}

pub(crate) async fn run(arguments: &Arguments, author: Author) -> Told {
    let clock = Clock::system();
    let mut steps = Steps { is_dry: arguments.dry_run, lines: Vec::new() };
    // Whatever can be refused is refused before anything is written.
    let people = people::Plan::new(arguments)?;
    let layout = Layout::new(arguments)?;
    layout.make_directories(&mut steps)?;
    let certificate = certificate::Plan::new(arguments, &layout, &clock)?;
    let auth = settings::auth(&layout, &mut steps)?;
    let urls = settings::registry(arguments, &layout, &certificate, &mut steps)?;
    certificate.carry_out(&layout, &clock, &mut steps)?;
    let admin = Admin::new(auth, author);
    open(&admin, &mut steps).await?;
    let made = people.carry_out(&admin, &mut steps).await?;
    let ca = certificate.is_berths().then(|| layout.certificates.ca_pem());
    let mut text = steps.lines.join("\n");
    if !steps.is_dry {
        let gap = if text.is_empty() { "" } else { "\n\n" };
        text.push_str(&format!("{gap}{}", next::text(&urls, ca.as_deref(), &made)));
    } else if text.is_empty() {
        text.push_str("nothing is missing");
    }
    let json = json!({
        "steps": steps.lines,
        "auth": layout.auth_toml,
        "registry": layout.registry_toml,
        "public_urls": urls,
        "certificate": layout.certificates.server_pem(),
        "ca": ca,
        "user": made.user,
        "password": made.password.as_ref().map(|password| password.as_str()),
    });
    Ok(Report::done(text, json))
}

/// Makes the signing keys and the database; nothing of that in a dry run.
async fn open(admin: &Admin, steps: &mut Steps) -> Result<(), Failure> {
    let config = &admin.config;
    let path = config.database();
    if config.server.is_none() && !path.exists() {
        steps.begin(format!("{} and the signing keys", path.display()));
    }
    if !steps.is_dry {
        files::make_directory(&config.data)?;
        admin.keys().await?.open().await?;
        admin.database().await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
