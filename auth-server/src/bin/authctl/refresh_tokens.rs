//! `authctl refresh-tokens`: what clients keep in place of passwords, seen and ended.

use auth_server::{admin::Admin, database::refresh_tokens::RefreshTokenRow};
use berth_shared::{
    clock::rfc3339,
    subject::{Grantee, Subject},
};
use clap::Subcommand;
use serde_json::{Value, json};

use crate::report::{Failure, Report, Told, warn};

#[derive(Subcommand)]
pub(crate) enum Verb {
    /// List refresh tokens: whose they are, which client has them, when they were last used.
    #[command(after_help = include_str!("help/refresh-tokens-list.txt"))]
    List {
        /// Only those of this user or robot.
        #[arg(long, value_name = "SUBJECT")]
        subject: Option<Grantee>,
    },
    /// End refresh tokens; tokens that came from them are void within seconds.
    #[command(after_help = include_str!("help/refresh-tokens-revoke.txt"))]
    Revoke {
        /// The numbers that list shows.
        #[arg(required = true, value_name = "ID")]
        ids: Vec<i64>,
        /// Say what would be done, and do nothing.
        #[arg(long)]
        dry_run: bool,
    },
}

pub(crate) async fn run(verb: Verb, admin: &Admin) -> Told {
    match verb {
        Verb::List { subject } => list(subject, admin).await,
        Verb::Revoke { ids, dry_run } => revoke(&ids, dry_run, admin).await,
    }
}

async fn list(subject: Option<Grantee>, admin: &Admin) -> Told {
    let subject = match subject {
        None => None,
        Some(Grantee::User(name)) => Some(Subject::User(name)),
        Some(Grantee::Robot(name)) => Some(Subject::Robot(name)),
        Some(other) => {
            return Err(Failure::usage(format!(
                "--subject {other}: only a user or a robot has refresh tokens of their own"
            )));
        }
    };
    let found = admin.database().await?.refresh_tokens(subject.as_ref()).await?;
    if !admin.config.refresh_tokens {
        warn("refresh tokens are off, so that none is accepted: refresh_tokens in auth.toml");
    }
    Ok(Report::list(
        found.iter().map(show).collect(),
        ["ID", "SUBJECT", "CLIENT", "CREATED", "LAST USED"],
        ["id", "subject", "client", "created", "last_used"],
        "there are no refresh tokens",
    ))
}

async fn revoke(ids: &[i64], dry_run: bool, admin: &Admin) -> Told {
    let database = admin.database().await?;
    let mut there = database.refresh_tokens(None).await?;
    if let Some(id) = ids.iter().find(|id| !there.iter().any(|row| row.id == **id)) {
        return Err(Failure::refused(format!(
            "there is no refresh token {id}, so nothing was ended; authctl refresh-tokens list \
             shows them"
        )));
    }
    let (verb, key, ended, remark) = if dry_run {
        there.retain(|row| ids.contains(&row.id));
        ("would end", "would_end", there, "nothing was changed: this was a dry run")
    } else {
        let ended = database.end_refresh_tokens(ids).await?;
        ("ended", "ended", ended, "what came from them is void within seconds")
    };
    let line = |row: &RefreshTokenRow| {
        let RefreshTokenRow { id, subject, client, .. } = row;
        format!("{verb} refresh token {id} of {subject} ({client})\n")
    };
    let lines: String = ended.iter().map(line).collect();
    let shown: Value = ended.iter().map(show).collect();
    Ok(Report::done(lines + remark, json!({ key: shown })))
}

fn show(row: &RefreshTokenRow) -> Value {
    json!({
        "id": row.id,
        "subject": row.subject.to_string(),
        "client": row.client,
        "created": rfc3339(row.created),
        "last_used": rfc3339(row.last_used),
    })
}
