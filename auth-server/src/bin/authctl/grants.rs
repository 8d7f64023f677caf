//! `authctl grant`, `deny` and `grants`: who may do what.

use auth_server::admin::{Admin, rules};
use berth_shared::{
    clock::UnixSeconds,
    rights::{Effect, Rule},
    subject::Grantee,
};
use clap::Args;
use serde_json::json;

use crate::{
    grant_text::{GrantText, json_rules, show_rules},
    report::{Failure, Report, warn_of},
    revoke, times,
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

pub(crate) async fn grant(arguments: &GrantArguments, admin: &Admin) -> Result<Report, Failure> {
    let GrantArguments { grantee, grants, expires, dry_run } = arguments;
    let rules: Vec<_> = grants.iter().map(|text| text.allow(grantee, *expires)).collect();
    let (did, key) = if *dry_run { ("would grant", "would_grant") } else { ("granted", "granted") };
    add(grantee, &rules, *dry_run, [did, key], admin).await
}

pub(crate) async fn deny(arguments: &DenyArguments, admin: &Admin) -> Result<Report, Failure> {
    let DenyArguments { grantee, denies, remove, expires, dry_run } = arguments;
    if *remove {
        return revoke::remove_denies(grantee, denies, *dry_run, admin).await;
    }
    let rules: Vec<_> =
        denies.iter().map(|text| text.rule(grantee, Effect::Deny, *expires)).collect();
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
) -> Result<Report, Failure> {
    warn_of(&rules::warnings(admin, grantee, rules).await?);
    if dry_run {
        let text = format!("{did}:\n{}", show_rules(rules, admin));
        return Ok(Report::done(text, json!({ key: json_rules(rules) })));
    }
    let held = rules::add(admin, grantee, rules).await?;
    let text = format!("{did}; the rules for {grantee} now:\n{}", show_rules(&held, admin));
    Ok(Report::done(text, json!({ key: json_rules(rules), "holds": json_rules(&held) })))
}

pub(crate) async fn list(arguments: &ListArguments, admin: &Admin) -> Result<Report, Failure> {
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
