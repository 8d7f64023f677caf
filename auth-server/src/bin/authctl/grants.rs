//! `authctl grant`, `revoke`, `deny` and `grants`: who may do what.

use auth_server::admin::{Admin, rules};
use berth_shared::{
    clock::UnixSeconds,
    rights::{Effect, Rule},
    subject::Grantee,
};
use clap::Subcommand;
use serde_json::json;

use crate::{
    grant_text::{self, GrantText, json_rules, show_rules, write},
    report::{Report, Told, warn_of},
    times,
};

#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Allow somebody to do something.
    #[command(after_help = include_str!("help/grant.txt"))]
    Grant {
        /// A user name, `robot.NAME`, `group:NAME`, `everyone` (whoever is signed in) or `anonymous`.
        #[arg(value_name = "SUBJECT")]
        grantee: Grantee,
        /// Repositories and actions, such as team/app:pull,push or 'team/**:*'.
        #[arg(required = true, value_name = "REPO:ACTIONS")]
        grants: Vec<GrantText>,
        /// How long the grant holds, such as 90d, or until when, such as 2030-01-31; for good unless
        /// given.
        #[arg(long, value_name = "TIME", value_parser = times::end, allow_hyphen_values = true)]
        expires: Option<UnixSeconds>,
        /// Say what would be done, and do nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// Take a grant back; tokens that rest on it are void within seconds.
    Revoke {
        /// A user name, `robot.NAME`, `group:NAME`, `everyone` or `anonymous`.
        #[arg(value_name = "SUBJECT")]
        grantee: Grantee,
        /// What is taken back, with the pattern as it was granted; `authctl grants` shows it.
        #[arg(required = true, value_name = "REPO:ACTIONS")]
        grants: Vec<GrantText>,
        /// Say what would be done, and do nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// Forbid something, whatever grants allow it.
    #[command(after_help = include_str!("help/deny.txt"))]
    Deny {
        /// A user name, `robot.NAME`, `group:NAME`, `everyone` or `anonymous`.
        #[arg(value_name = "SUBJECT")]
        grantee: Grantee,
        /// Repositories and actions, such as 'secret/**:push'.
        #[arg(required = true, value_name = "REPO:ACTIONS")]
        denies: Vec<GrantText>,
        /// Take the deny back.
        #[arg(long, conflicts_with = "expires")]
        remove: bool,
        /// How long the deny holds, such as 90d, or until when, such as 2030-01-31; for good unless
        /// given.
        #[arg(long, value_name = "TIME", value_parser = times::end, allow_hyphen_values = true)]
        expires: Option<UnixSeconds>,
        /// Say what would be done, and do nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// List grants and denies.
    Grants {
        /// Only what holds for this subject, through groups and `everyone` too.
        #[arg(value_name = "SUBJECT")]
        grantee: Option<Grantee>,
    },
}

pub(crate) async fn run(verb: Verb, admin: &Admin) -> Told {
    match verb {
        Verb::Grant { grantee, grants, expires, dry_run } => {
            add(&grantee, &grants, Effect::Allow, expires, dry_run, admin).await
        }
        Verb::Revoke { grantee, grants, dry_run } => {
            take(&grantee, &grants, Effect::Allow, dry_run, admin).await
        }
        Verb::Deny { grantee, denies, remove: true, dry_run, .. } => {
            take(&grantee, &denies, Effect::Deny, dry_run, admin).await
        }
        Verb::Deny { grantee, denies, expires, dry_run, .. } => {
            add(&grantee, &denies, Effect::Deny, expires, dry_run, admin).await
        }
        Verb::Grants { grantee } => list(grantee.as_ref(), admin).await,
    }
}

async fn list(grantee: Option<&Grantee>, admin: &Admin) -> Told {
    let rules: Vec<Rule> = match grantee {
        Some(grantee) => {
            warn_of(&rules::warnings(admin, grantee, &[]).await?);
            rules::holding_for(&*admin.policy().await?, grantee)
        }
        None => admin.policy().await?.rules().into_iter().cloned().collect(),
    };
    let text = match grantee {
        _ if !rules.is_empty() => show_rules(&rules, admin),
        Some(grantee) => format!(
            "no rule is for {grantee}; to give a grant: authctl grant {grantee} 'team/**:pull,push'"
        ),
        None => {
            "there are no grants; to give one: authctl grant NAME 'team/**:pull,push'".to_owned()
        }
    };
    Ok(Report::done(text, json_rules(&rules)))
}

/// Adds rules, or says that it would.
async fn add(
    grantee: &Grantee,
    texts: &[GrantText],
    effect: Effect,
    expires: Option<UnixSeconds>,
    dry_run: bool,
    admin: &Admin,
) -> Told {
    let rules = grant_text::rules(texts, grantee, effect, expires);
    warn_of(&rules::warnings(admin, grantee, &rules).await?);
    let (act, did) = match effect {
        Effect::Allow => ("grant", "granted"),
        Effect::Deny => ("deny", "denied"),
    };
    if dry_run {
        let text = format!("would {act}:\n{}", show_rules(&rules, admin));
        return Ok(Report::done(text, json!({ format!("would_{act}"): json_rules(&rules) })));
    }
    let held = rules::add(admin, grantee, &rules).await?;
    let text = format!("{did}; the rules for {grantee} now:\n{}", show_rules(&held, admin));
    Ok(Report::done(text, json!({ did: json_rules(&rules), "holds": json_rules(&held) })))
}

/// Takes rules back, or says that it would, and what is still held by others.
async fn take(
    grantee: &Grantee,
    texts: &[GrantText],
    effect: Effect,
    dry_run: bool,
    admin: &Admin,
) -> Told {
    let (noun, verb) = match (effect, dry_run) {
        (Effect::Allow, false) => ("grant", "revoked"),
        (Effect::Allow, true) => ("grant", "would revoke"),
        (Effect::Deny, false) => ("deny", "removed the deny"),
        (Effect::Deny, true) => ("deny", "would remove the deny"),
    };
    let (mut lines, mut taken, mut still) = (Vec::new(), Vec::new(), Vec::new());
    for text in texts {
        let GrantText { pattern, actions } = text;
        let lost = rules::take(admin, grantee, pattern, effect, *actions, dry_run).await?;
        if lost.is_empty() {
            lines.push(format!("there is no {noun} {grantee} {pattern}:{actions}"));
        } else {
            lines.push(format!("{verb} {grantee} {pattern}:{lost}"));
            taken.push(text.rule(grantee, effect, None));
        }
        if effect == Effect::Deny {
            continue;
        }
        for rule in rules::still_allowing(admin, grantee, pattern, *actions, dry_run).await? {
            let kept = rule.decides().intersection(*actions);
            let shown = write(&rule);
            lines.push(format!("{grantee} still holds {kept} through the grant {shown}"));
            still.push(rule);
        }
    }
    let missing = taken.len() < texts.len();
    if missing {
        let held = rules::naming(admin, grantee).await?;
        lines.push(if held.is_empty() {
            format!("no rule names {grantee}")
        } else {
            format!("the rules for {grantee}:\n{}", show_rules(&held, admin))
        });
    }
    let json = match effect {
        Effect::Allow => {
            json!({ "revoked": json_rules(&taken), "still_held": json_rules(&still) })
        }
        Effect::Deny => json!({ "removed": json_rules(&taken) }),
    };
    Ok(Report { text: lines.join("\n"), json, is_no: missing || !still.is_empty() })
}
