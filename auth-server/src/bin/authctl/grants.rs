//! `authctl grant`, `revoke`, `deny` and `grants`: who may do what.

use berth_shared::{
    clock::UnixSeconds,
    rights::{Effect, Rule},
    subject::Grantee,
};
use clap::Args;
use serde_json::json;

use crate::{
    grant_text::{self, GrantText, json_rules, show_rules, write},
    instance::Admin,
    report::{Failure, Report, Told, warn_of},
    rules, times,
};

#[derive(Args)]
#[command(after_help = "\
Examples:
  authctl grant andrew team/app:push             push implies pull
  authctl grant lena 'team/**:pull' docs:*       several at once
  authctl grant group:devs 'team/**:pull,push'   every member of a group
  authctl grant everyone '${user}/**:*'          each user, below their own name
  authctl grant everyone 'base/*:pull'           every signed-in user
  authctl grant anonymous 'public/**:pull'       anybody at all
  authctl grant ci team/app:push --expires 90d")]
pub(crate) struct GrantArguments {
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
}

#[derive(Args)]
#[command(after_help = "\
A deny wins over every grant, whoever it was given to. `authctl grants` lists it.

Examples:
  authctl deny andrew 'secret/**:push'             and tokens that are out are void
  authctl deny everyone 'archive/**:push,delete'   for everybody
  authctl deny andrew 'secret/**:push' --remove    takes the deny back")]
pub(crate) struct DenyArguments {
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
}

#[derive(Args)]
pub(crate) struct ListArguments {
    /// Only what holds for this subject, through groups and `everyone` too.
    #[arg(value_name = "SUBJECT")]
    grantee: Option<Grantee>,
}

pub(crate) async fn grant(arguments: &GrantArguments, admin: &Admin) -> Told {
    let GrantArguments { grantee, grants, expires, dry_run } = arguments;
    let rules = grant_text::rules(grants, grantee, Effect::Allow, *expires);
    let (did, key) = if *dry_run { ("would grant", "would_grant") } else { ("granted", "granted") };
    add(grantee, &rules, *dry_run, [did, key], admin).await
}

pub(crate) async fn deny(arguments: &DenyArguments, admin: &Admin) -> Told {
    let DenyArguments { grantee, denies, remove, expires, dry_run } = arguments;
    if *remove {
        return remove_denies(grantee, denies, *dry_run, admin).await;
    }
    let rules = grant_text::rules(denies, grantee, Effect::Deny, *expires);
    let (did, key) = if *dry_run { ("would deny", "would_deny") } else { ("denied", "denied") };
    add(grantee, &rules, *dry_run, [did, key], admin).await
}

/// Adds rules, or says that it would.
async fn add(
    grantee: &Grantee,
    rules: &[Rule],
    dry_run: bool,
    [did, key]: [&str; 2],
    admin: &Admin,
) -> Told {
    warn_of(&rules::warnings(admin, grantee, rules).await?);
    if dry_run {
        let text = format!("{did}:\n{}", show_rules(rules, admin));
        return Ok(Report::done(text, json!({ key: json_rules(rules) })));
    }
    let held = rules::add(admin, grantee, rules).await?;
    let text = format!("{did}; the rules for {grantee} now:\n{}", show_rules(&held, admin));
    Ok(Report::done(text, json!({ key: json_rules(rules), "holds": json_rules(&held) })))
}

pub(crate) async fn list(arguments: &ListArguments, admin: &Admin) -> Told {
    let rules: Vec<Rule> = match &arguments.grantee {
        Some(grantee) => {
            warn_of(&rules::warnings(admin, grantee, &[]).await?);
            rules::holding_for(&*admin.policy().await?, grantee)
        }
        None => admin.policy().await?.rules().into_iter().cloned().collect(),
    };
    let text = match &arguments.grantee {
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

#[derive(Args)]
pub(crate) struct RevokeArguments {
    /// A user name, `robot.NAME`, `group:NAME`, `everyone` or `anonymous`.
    #[arg(value_name = "SUBJECT")]
    grantee: Grantee,
    /// What is taken back, with the pattern as it was granted; `authctl grants` shows it.
    #[arg(required = true, value_name = "REPO:ACTIONS")]
    grants: Vec<GrantText>,
    /// Say what would be done, and do nothing.
    #[arg(long)]
    dry_run: bool,
}

/// What came of taking rules back.
#[derive(Default)]
struct Taken {
    lines: Vec<String>,
    rules: Vec<Rule>,
}

pub(crate) async fn revoke(arguments: &RevokeArguments, admin: &Admin) -> Told {
    let RevokeArguments { grantee, grants, dry_run } = arguments;
    let mut taken = Taken::default();
    let mut still = Vec::new();
    for text in grants {
        take(admin, grantee, text, Effect::Allow, *dry_run, &mut taken).await?;
        let GrantText { pattern, actions } = text;
        let allowing = rules::still_allowing(admin, grantee, pattern, *actions, *dry_run);
        for rule in allowing.await? {
            let kept = rule.decides().intersection(text.actions);
            let line = format!("{grantee} still holds {kept} through the grant {}", write(&rule));
            taken.lines.push(line);
            still.push(rule);
        }
    }
    let missing = taken.rules.len() < grants.len();
    if missing {
        taken.lines.push(what_is_held(admin, grantee).await?);
    }
    let json = json!({ "revoked": json_rules(&taken.rules), "still_held": json_rules(&still) });
    Ok(Report { text: taken.lines.join("\n"), json, is_no: missing || !still.is_empty() })
}

/// `authctl deny --remove`.
async fn remove_denies(
    grantee: &Grantee,
    denies: &[GrantText],
    dry_run: bool,
    admin: &Admin,
) -> Told {
    let mut taken = Taken::default();
    for text in denies {
        take(admin, grantee, text, Effect::Deny, dry_run, &mut taken).await?;
    }
    let is_no = taken.rules.len() < denies.len();
    if is_no {
        taken.lines.push(what_is_held(admin, grantee).await?);
    }
    let json = json!({ "removed": json_rules(&taken.rules) });
    Ok(Report { text: taken.lines.join("\n"), json, is_no })
}

async fn take(
    admin: &Admin,
    grantee: &Grantee,
    text: &GrantText,
    effect: Effect,
    dry_run: bool,
    taken: &mut Taken,
) -> Result<(), Failure> {
    let (noun, did, would) = match effect {
        Effect::Allow => ("grant", "revoked", "would revoke"),
        Effect::Deny => ("deny", "removed the deny", "would remove the deny"),
    };
    let GrantText { pattern, actions } = text;
    let lost = rules::take(admin, grantee, pattern, effect, *actions, dry_run).await?;
    if lost.is_empty() {
        taken.lines.push(format!("there is no {noun} {grantee} {pattern}:{actions}"));
    } else {
        let verb = if dry_run { would } else { did };
        taken.lines.push(format!("{verb} {grantee} {pattern}:{lost}"));
        taken.rules.push(text.rule(grantee, effect, None));
    }
    Ok(())
}

async fn what_is_held(admin: &Admin, grantee: &Grantee) -> Result<String, Failure> {
    let held = rules::naming(admin, grantee).await?;
    Ok(if held.is_empty() {
        format!("no rule names {grantee}")
    } else {
        format!("the rules for {grantee}:\n{}", show_rules(&held, admin))
    })
}
