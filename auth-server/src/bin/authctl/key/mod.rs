//! `authctl key`: the keys that sign tokens.

use auth_server::{
    admin::Admin,
    audit::Act,
    certs::signing_certificate,
    keys::{How, KeyInfo, KeyState, Rotated, SigningKeys, rotate},
};
use berth_shared::clock::rfc3339;
use clap::Subcommand;
use serde_json::json;

use crate::report::{Failure, Report, Told, table, warn};

#[cfg(test)]
mod tests;

#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Let the next key sign; the old one stays published until nothing that it signed is in use.
    ///
    /// The running auth-server takes the change into use by itself, and no request is refused: the next
    /// key has been published since the last rotation, and a new next key is published now. What
    /// verifies by certificates wants new ones: authctl key export.
    #[command(after_help = include_str!("../help/key-rotate.txt"))]
    Rotate {
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
    },
    /// List the keys: which one signs, which will, and when the old ones go.
    #[command(after_help = include_str!("../help/key-list.txt"))]
    List,
    /// Write certificates over all published keys to standard output, for a registry that verifies
    /// tokens by a certificate bundle.
    ///
    /// The next key is among them, so that the bundle outlives one rotation. Write it again after
    /// each.
    #[command(after_help = include_str!("../help/key-export.txt"))]
    Export,
}

pub(crate) async fn run(verb: &Verb, admin: &Admin) -> Told {
    match verb {
        Verb::Rotate { now, compromised, dry_run } => {
            let how = match (compromised, now) {
                (true, _) => How::Compromised,
                (false, true) => How::Now,
                (false, false) => How::InOrder,
            };
            carry_out(how, *dry_run, admin).await
        }
        Verb::List => list(admin),
        Verb::Export => export(admin),
    }
}

async fn carry_out(how: How, dry_run: bool, admin: &Admin) -> Told {
    let rotated = rotate(&admin.config.keys(), how, dry_run, admin.clock())?;
    // A database that is out of order must not keep anybody from dropping a key that leaked.
    if !dry_run && let Err(Failure { reason, .. }) = record(&rotated, admin).await {
        warn(&format!("the keys are rotated, and the audit does not know: {reason}"));
    }
    let mut json = json!(rotated);
    json["dry_run"] = dry_run.into();
    Ok(Report::done(effects(&rotated, how, dry_run).join("\n"), json))
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
    let (is, would, s) = if is_dry { ("would be", "would ", "") } else { ("is", "", "s") };
    let drop = |key: &KeyInfo| format!("{} {is} neither used nor published any more", key.id);
    let mut lines: Vec<_> = rotated.dropped.iter().map(drop).collect();
    lines.push(match &rotated.active {
        Some(key) => format!("{} {would}sign{s} from now on", key.id),
        None => "would make a key that signs at once".to_owned(),
    });
    if let Some(key) = &rotated.retired {
        let until = key.until.map(|it| format!(" until {}", rfc3339(it))).unwrap_or_default();
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

fn list(admin: &Admin) -> Told {
    let keys = SigningKeys::read(&admin.config.keys(), admin.clock())?;
    let objects: Vec<_> = keys.list().map(|key| json!(key)).collect();
    let headings = ["KEY", "ALGORITHM", "STATE", "MADE", "SINCE", "GOES"];
    let members = ["id", "algorithm", "state", "made", "since", "until"];
    let mut text = table(headings, members, "", &objects);
    if let Some(from) = keys.of(KeyState::Next).and_then(|key| key.signs_from) {
        let when =
            if from > admin.now() { format!("from {}", rfc3339(from)) } else { "now".into() };
        text.push_str(&format!("\n\nthe next key can sign {when}: authctl key rotate"));
    }
    Ok(Report::done(text, objects.into()))
}

fn export(admin: &Admin) -> Told {
    let keys = SigningKeys::open(&admin.config.keys(), admin.clock())?;
    let certificates = keys.files().map(|(file, made)| signing_certificate(file, made));
    let certificates: String = certificates.collect::<Result<_, _>>()?;
    let data = json!({ "key_id": keys.active_id(), "certificates": certificates });
    Ok(Report::done(certificates.trim_end(), data))
}
