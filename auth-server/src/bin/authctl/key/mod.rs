//! `authctl key`: the keys that sign tokens.

use auth_server::{
    admin::Admin,
    audit::Act,
    certs::signing_certificate,
    config::Config,
    keys::{How, KeyState, Rotated, SigningKeys, rotate},
};
use berth_shared::clock::{Clock, rfc3339};
use clap::{Args, Subcommand};
use serde_json::json;

use crate::report::{Failure, Report, Told, table, warn};

#[cfg(test)]
mod tests;

#[derive(Subcommand)]
pub(crate) enum Verb {
    Rotate(RotateArguments),
    /// List the keys: which one signs, which will, and when the old ones go.
    #[command(after_help = LIST_HELP)]
    List,
    /// Write certificates over all published keys to standard output, for a registry that verifies
    /// tokens by a certificate bundle.
    ///
    /// The next key is among them, so that the bundle outlives one rotation. Write it again after
    /// each.
    #[command(after_help = EXPORT_HELP)]
    Export,
}

/// Let the next key sign; the old one stays published until nothing that it signed is in use.
///
/// The running auth-server takes the change into use by itself, and no request is refused: the next
/// key has been published since the last rotation, and a new next key is published now. What
/// verifies by certificates wants new ones: authctl key export.
#[derive(Args)]
#[command(after_help = "\
Examples:
  authctl key rotate                  once a year, say
  authctl key rotate --dry-run        is it possible yet?
  authctl key rotate --compromised    somebody may have read the keys

Six minutes after a rotation every registry has fetched the next key; before that the verb refuses
(exit code 1) and says when it will do.")]
pub(crate) struct RotateArguments {
    /// Do not wait until every registry knows the next key. Berth's asks every two seconds; others
    /// may refuse new tokens for some minutes.
    #[arg(long)]
    now: bool,
    /// The keys may have leaked: none that is there is used or published any more, the next one
    /// included. Clients fetch new tokens by themselves; uploads that last for longer than a token
    /// begin anew.
    #[arg(long)]
    compromised: bool,
    /// Say what would be done, and do nothing.
    #[arg(long)]
    dry_run: bool,
}

const LIST_HELP: &str = "\
Examples:
  authctl key list
  authctl key list --json

active signs; next is published and signs after authctl key rotate; retired signs no more and stays
published until the time under GOES. What is listed here is what /keys publishes.";

const EXPORT_HELP: &str = "\
Examples:
  authctl key export > /etc/docker/registry/berth.pem    its rootcertbundle; restart it after that";

pub(crate) async fn run(admin: &Admin, verb: &Verb, clock: &Clock) -> Told {
    let config = admin.config();
    match verb {
        Verb::Rotate(arguments) => arguments.run(admin, clock).await,
        Verb::List => list(config, clock),
        Verb::Export => export(config, clock),
    }
}

impl RotateArguments {
    async fn run(&self, admin: &Admin, clock: &Clock) -> Told {
        let how = match (self.compromised, self.now) {
            (true, _) => How::Compromised,
            (false, true) => How::Now,
            (false, false) => How::InOrder,
        };
        let rotated = rotate(&admin.config().keys(), how, self.dry_run, clock)?;
        // A database that is out of order must not keep anybody from dropping a key that leaked.
        if !self.dry_run
            && let Err(failure) = record(&rotated, admin).await
        {
            let reason = failure.reason;
            warn(&format!("the keys are rotated, and the audit does not know: {reason}"));
        }
        let mut json = json!(rotated);
        json["dry_run"] = self.dry_run.into();
        let lines = effects(&rotated, how, self.dry_run);
        Ok(Report::done(lines.join("\n"), json))
    }
}

async fn record(rotated: &Rotated, admin: &Admin) -> Result<(), Failure> {
    let database = admin.database().await?;
    let dropped = rotated.dropped.iter().map(|key| Act::KeyCompromised(&key.id));
    let active = rotated.active.iter().map(|key| Act::KeyRotate(&key.id));
    let retired = rotated.retired.iter().map(|key| Act::KeyRetire(&key.id));
    for act in dropped.chain(active).chain(retired) {
        database.record(&act).await?;
    }
    Ok(())
}

/// What a rotation means, a line for each thing.
fn effects(rotated: &Rotated, how: How, is_dry: bool) -> Vec<String> {
    let mut lines = Vec::new();
    let would = if is_dry { "would " } else { "" };
    let s = if is_dry { "" } else { "s" };
    for key in &rotated.dropped {
        let done = if is_dry { "would be" } else { "is" };
        lines.push(format!("{} {done} neither used nor published any more", key.id));
    }
    match &rotated.active {
        Some(key) => lines.push(format!("{} {would}sign{s} from now on", key.id)),
        None => lines.push("would make a key that signs at once".to_owned()),
    }
    if let Some(key) = &rotated.retired {
        let until = key.until.map(|until| format!(" until {}", rfc3339(until)));
        let until = until.unwrap_or_default();
        lines.push(format!("{} {would}retire{s} and stay{s} published{until}", key.id));
    }
    match &rotated.next {
        Some(key) => {
            let from = key.signs_from.map(rfc3339).unwrap_or_default();
            lines.push(format!("{} is the next key; it can sign from {from}", key.id));
        }
        None => lines.push("would make a new next key".to_owned()),
    }
    if is_dry && how != How::InOrder {
        lines.push("after that, and not now:".to_owned());
    }
    match how {
        How::InOrder => {}
        How::Now => lines.push(
            "Berth's registry knows these keys within seconds; others refuse new tokens until they \
             have fetched /keys, after 5 minutes at most"
                .to_owned(),
        ),
        How::Compromised => lines.extend([
            "every token that is out is void: in Berth's registry within seconds, in others when \
             they have fetched /keys, after 5 minutes at most, or been given authctl key export"
                .to_owned(),
            "backups made before hold the old keys: make a new one, and delete those".to_owned(),
        ]),
    }
    lines
}

fn list(config: &Config, clock: &Clock) -> Told {
    let keys = SigningKeys::read(&config.keys(), clock)?;
    let objects: Vec<_> = keys.list().map(|key| json!(key)).collect();
    let headings = ["KEY", "ALGORITHM", "STATE", "MADE", "SINCE", "GOES"];
    let members = ["id", "algorithm", "state", "made", "since", "until"];
    let mut text = table(headings, members, "", &objects);
    if let Some(from) = keys.of(KeyState::Next).and_then(|key| key.signs_from) {
        let when =
            if from > clock.now() { format!("from {}", rfc3339(from)) } else { "now".into() };
        text.push_str(&format!("\n\nthe next key can sign {when}: authctl key rotate"));
    }
    Ok(Report::done(text, objects.into()))
}

fn export(config: &Config, clock: &Clock) -> Told {
    let keys = SigningKeys::open(&config.keys(), clock)?;
    let certificates: String = keys
        .files()
        .map(|(file, made)| signing_certificate(file, made))
        .collect::<Result<_, _>>()?;
    let data = json!({ "key_id": keys.active_id(), "certificates": certificates });
    Ok(Report::done(certificates.trim_end(), data))
}
