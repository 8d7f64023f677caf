//! `authctl link`: what registry-servers on other machines need to ask auth-server.

use std::path::{Path, PathBuf};

use auth_server::{
    admin::Admin,
    audit::Act,
    host::Host,
    link_files::{LinkFiles, add_secret, drop_secret},
};
use berth_shared::link_secret::LinkSecrets;
use clap::Subcommand;
use serde_json::json;

use crate::{
    cert::hosts,
    report::{Failure, Report, Told, refuse_if, warn},
};

#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Make certificate, key and secret of the link, by which registry-servers on other machines ask
    /// auth-server, and say what belongs into the settings.
    #[command(after_help = include_str!("help/link-init.txt"))]
    Init {
        /// The names and addresses by which registry-servers reach auth-server, by comma.
        #[arg(long, value_name = "LIST", required = true, value_parser = hosts)]
        host: Box<[Host]>,
        /// Where to put them [default: the directory link in auth-server's data]
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
        /// Make all of them anew, also where they are there: registry-servers need the new ca.pem and the
        /// new secret then.
        #[arg(long)]
        force: bool,
        /// Say what would be done, and do nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// Change the link's secret, in two steps, without a request that fails.
    #[command(after_help = include_str!("help/link-rotate.txt"))]
    Rotate {
        /// The second step: take the old secret no longer, once every registry-server shows the new one.
        #[arg(long)]
        finish: bool,
        /// Say what would be done, and do nothing.
        #[arg(long)]
        dry_run: bool,
    },
}

pub(crate) async fn run(verb: &Verb, admin: &Admin) -> Told {
    match verb {
        Verb::Init { host, dir, force, dry_run } => {
            let in_data = || admin.config.data.join("link");
            let dir = dir.clone().map_or_else(in_data, absolute);
            init(host, &dir, *force, *dry_run, admin).await
        }
        Verb::Rotate { finish, dry_run } => rotate(*finish, *dry_run, admin).await,
    }
}

async fn init(hosts: &[Host], dir: &Path, force: bool, is_dry: bool, admin: &Admin) -> Told {
    let Some(first) = hosts.first() else {
        return Err(Failure::usage("--host names no host"));
    };
    let dir = &dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    let files = LinkFiles::at(dir);
    let (shown, was_there) = (dir.display(), !files.is_incomplete());
    refuse_if(was_there && !force, || {
        format!(
            "{shown} has what the link needs already; to change the secret: authctl link rotate; to make all \
             anew, after which every registry-server needs the new ca.pem and secret: --force"
        )
    })?;
    if !is_dry {
        files.make(hosts, force, admin.clock())?;
        record(&Act::LinkInit, admin).await;
    }
    // As they hold from everywhere: the settings lie in another directory than one works in.
    let dir = &dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    let files = LinkFiles::at(dir);
    let certificates = files.certificates();
    let (secret, ca) = (files.secret(), certificates.ca_pem());
    let (pem, key) = (certificates.server_pem(), certificates.server_key());
    let [pem, key, secret, ca] = [pem, key, secret, ca].map(|path| path.display().to_string());
    let wrote = match (is_dry, was_there) {
        (false, _) => "made",
        (true, false) => "would make",
        (true, true) => "would replace",
    };
    let url = first.origin(5002);
    let warning = if was_there {
        "\nuntil ca.pem and secret are copied, nobody can sign in at the registry-servers"
    } else {
        ""
    };
    let text = format!(
        "{wrote} {pem}, its key, its CA and the secret{warning}\n\n{}",
        settings([&pem, &key, &secret, &ca], &url)
    );
    let json = json!({
        "certificate": pem, "key": key, "ca": ca, "secret_file": secret, "hosts": hosts, "url": url,
        "dry_run": is_dry,
    });
    Ok(Report::done(text, json))
}

/// What belongs into the settings of both servers.
fn settings([pem, key, secret, ca]: [&str; 4], url: &str) -> String {
    let [quoted_pem, quoted_key, quoted_secret] = [pem, key, secret].map(quoted);
    format!(
        "At the end of auth.toml, and then restart auth-server:\n\
         \n\
         [link]\n\
         listen = \"[::]:5002\"\n\
         certificate = {quoted_pem}\n\
         key = {quoted_key}\n\
         secret_file = {quoted_secret}\n\
         \n\
         Copy {ca} and {secret} to each registry-server, beside registry.toml, where only its user may read the \
         secret. Take the line auth_socket out of registry.toml, and put this at its end:\n\
         \n\
         [link]\n\
         url = \"{url}\"\n\
         ca = \"ca.pem\"\n\
         secret_file = \"secret\""
    )
}

async fn rotate(finish: bool, is_dry: bool, admin: &Admin) -> Told {
    let Some(link) = &admin.config.link else {
        let reason = "auth.toml has no [link]: authctl link init makes what belongs there";
        return Err(Failure::refused(reason));
    };
    let path = &link.secret_file;
    let are_two = LinkSecrets::read(path)?.are_two();
    refuse_if(are_two && !finish, || {
        "the secret is being changed already: authctl link rotate --finish, once every registry-server \
         has the new one"
            .to_owned()
    })?;
    refuse_if(!are_two && finish, || {
        "there is one secret alone: authctl link rotate begins to change it".to_owned()
    })?;
    if !is_dry {
        let is_done = if finish { drop_secret(path)? } else { add_secret(path)? };
        refuse_if(!is_done, || {
            "somebody else changed the secret meanwhile: look again".to_owned()
        })?;
        record(&Act::LinkRotate(if finish { "finish" } else { "begin" }), admin).await;
    }
    let (shown, would) = (path.display(), if is_dry { "would now " } else { "" });
    let text = match (finish, is_dry) {
        (true, true) => format!("{shown} would hold the new secret alone"),
        (true, false) => format!("{shown} holds the new secret alone: the old one is refused"),
        (false, _) => format!(
            "{shown} {would}hold{s} two secrets, and auth-server takes both; copy it to each \
             registry-server, which takes it into use by itself, and then: authctl link rotate --finish",
            s = if is_dry { "" } else { "s" }
        ),
    };
    let json =
        json!({ "secret_file": path, "secrets": if finish { 1 } else { 2 }, "dry_run": is_dry });
    Ok(Report::done(text, json))
}

/// A database that is out of order must not keep anybody from changing a secret that leaked.
async fn record(act: &Act<'_>, admin: &Admin) {
    let recorded = async { Ok::<_, Failure>(admin.database().await?.record(act).await?) };
    if let Err(Failure { reason, .. }) = recorded.await {
        warn(&format!("it is done, and the audit does not know: {reason}"));
    }
}

/// A string of TOML.
fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}
