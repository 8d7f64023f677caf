//! `authctl key`: the keys that sign tokens.

use std::path::{self, Path, PathBuf};

use auth_server::{
    admin::Admin,
    keys::{How, KeyInfo, KeyState, Rotated, Sealer},
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
    /// Make the file that seals the signing keys where they lie in the database: keys.sealed_with.
    ///
    /// It needs no settings. Every auth-server and authctl has the same file; whoever has it and a copy of
    /// the database can sign.
    #[command(after_help = include_str!("../help/key-seal.txt"))]
    Seal {
        /// The file, which only its owner may read. One that is there is not overwritten.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// Put a new line in front of the one in the file: it seals from now on, and both open.
        #[arg(long)]
        add: bool,
    },
    /// Seal all signing keys anew with the first line of keys.sealed_with, so that its second can be
    /// taken out.
    ///
    /// Tokens and signing keys stay as they are.
    #[command(after_help = include_str!("../help/key-seal.txt"))]
    Reseal,
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
        Verb::List => list(admin).await,
        Verb::Export => export(admin).await,
        Verb::Seal { out, add } => seal(out, *add),
        Verb::Reseal => reseal(admin).await,
    }
}

async fn carry_out(how: How, dry_run: bool, admin: &Admin) -> Told {
    let store = admin.keys().await?;
    let rotated = store.rotate(how, dry_run).await?;
    // A database that is out of order must not keep anybody from dropping a key that leaked.
    if !dry_run
        && !store.records_acts()
        && let Err(Failure { reason, .. }) = record(&rotated, admin).await
    {
        warn(&format!("the keys are rotated, and the audit does not know: {reason}"));
    }
    let mut json = json!(rotated);
    json["dry_run"] = dry_run.into();
    Ok(Report::done(effects(&rotated, how, dry_run).join("\n"), json))
}

async fn record(rotated: &Rotated, admin: &Admin) -> Result<(), Failure> {
    let database = admin.database().await?;
    for act in rotated.acts() {
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

async fn list(admin: &Admin) -> Told {
    let keys = admin.keys().await?.read().await?;
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

async fn export(admin: &Admin) -> Told {
    let keys = admin.keys().await?.open().await?;
    let certificates = keys.certificates()?;
    let data = json!({ "key_id": keys.active_id(), "certificates": certificates });
    Ok(Report::done(certificates.trim_end(), data))
}

/// Makes the file that seals, or changes it.
pub(crate) fn seal(out: &Path, add: bool) -> Told {
    let out = path::absolute(out)?;
    if add {
        Sealer::add(&out)?;
    } else {
        Sealer::make(&out)?;
    }
    let shown = out.display();
    let text = if add {
        format!(
            "{shown} has a new first line; put it in the place of the old one wherever an auth-server \
             runs, and rotate no key until it is everywhere; then: authctl key reseal"
        )
    } else {
        format!(
            "wrote {shown}; in auth.toml:\n\
             \n\
             [keys]\n\
             sealed_with = \"{shown}\"\n\
             \n\
             keep a copy, and not beside one of the database: without it nobody opens the signing keys"
        )
    };
    Ok(Report::done(text, json!({ "file": out, "lines": if add { 2 } else { 1 } })))
}

async fn reseal(admin: &Admin) -> Told {
    let resealed = admin.keys().await?.reseal().await?;
    let keys = resealed.keys;
    let mut text = format!("sealed {keys} signing key{} anew", if keys == 1 { "" } else { "s" });
    if resealed.may_drop_second {
        let file = admin.config.keys.sealed_with.as_deref().unwrap_or(Path::new(""));
        text += &format!(
            "; its second line can be taken out of {} now, wherever an auth-server runs",
            file.display()
        );
    }
    Ok(Report::done(text, json!({ "keys": keys })))
}
