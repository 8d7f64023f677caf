//! `authctl group`: users and robots that share rules.

use std::collections::BTreeSet;

use auth_server::database::policy::Policy;
use berth_shared::subject::{Grantee, GroupName, InvalidUserName, Subject};
use clap::Subcommand;
use serde_json::json;

use crate::{
    instance::Admin,
    report::{Report, Told, warn},
    warning::nobody_yet,
};

#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Put users and robots into a group; the first makes it.
    Add(Members),
    /// Take users and robots out of a group; their tokens are void within seconds.
    Remove(Members),
    /// List groups and who is in them.
    List,
}

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  authctl group add devs andrew lena robot.ci
  authctl grant group:devs 'team/**:pull,push'
  authctl group remove devs lena")]
pub(crate) struct Members {
    /// The group's name, as in group:NAME of a grant.
    #[arg(value_parser = group_name)]
    group: GroupName,
    /// Users, and robots as robot.NAME.
    #[arg(required = true, value_name = "USER", value_parser = member)]
    members: Vec<Subject>,
    /// Say what would be done, and do nothing.
    #[arg(long)]
    dry_run: bool,
}

/// Reads a group's name as an administrator types it, with or without `group:`.
fn group_name(text: &str) -> Result<GroupName, String> {
    let name = text.strip_prefix("group:").unwrap_or(text);
    if matches!(name.parse(), Ok(Grantee::Everyone | Grantee::Anonymous)) {
        return Err(format!("{name} has a meaning of its own in grants: choose another name"));
    }
    name.parse().map_err(|error: InvalidUserName| error.to_string())
}

/// Reads a user or robot.
pub(crate) fn member(text: &str) -> Result<Subject, InvalidUserName> {
    match Subject::from_claim(text)? {
        Subject::Anonymous | Subject::Foreign(_) => Err(InvalidUserName::Grammar),
        member => Ok(member),
    }
}

pub(crate) async fn run(verb: Verb, admin: &Admin) -> Told {
    match verb {
        Verb::Add(members) => add(&members, admin).await,
        Verb::Remove(members) => remove(&members, admin).await,
        Verb::List => list(admin).await,
    }
}

async fn add(arguments: &Members, admin: &Admin) -> Told {
    let Members { group, members, dry_run } = arguments;
    let policy = admin.policy().await?;
    for own in members.iter().flat_map(|member| member.grantees().take(1)) {
        nobody_yet(&own, admin, &policy).iter().for_each(|warning| warn(warning));
    }
    let joined = if *dry_run {
        members.iter().filter(|member| !is_in(group, member, &policy)).cloned().collect()
    } else {
        admin.database().await?.groups().join(group, members).await?
    };
    let verb = match (*dry_run, members.len()) {
        (true, _) => "would be in",
        (false, 1) => "is in",
        (false, _) => "are in",
    };
    let text = format!("{} {verb} group:{group}", names(members).join(", "));
    Ok(Report::done(text, json!({ "group": group, "added": names(&joined), "dry_run": dry_run })))
}

async fn remove(arguments: &Members, admin: &Admin) -> Told {
    let Members { group, members, dry_run } = arguments;
    let (verb, left) = if *dry_run {
        let policy = admin.policy().await?;
        let is_in = |member: &&Subject| is_in(group, member, &policy);
        ("would leave", members.iter().filter(is_in).cloned().collect())
    } else {
        ("left", admin.database().await?.groups().leave(group, members).await?)
    };
    let mut lines: Vec<_> =
        left.iter().map(|member| format!("{member} {verb} group:{group}")).collect();
    let missing = members.iter().filter(|member| !left.contains(member));
    lines.extend(missing.map(|member| format!("{member} is not in group:{group}")));
    let json = json!({ "group": group, "removed": names(&left), "dry_run": dry_run });
    Ok(Report { text: lines.join("\n"), json, is_no: left.len() < members.len() })
}

fn is_in(group: &GroupName, member: &Subject, policy: &Policy) -> bool {
    policy.groups.get(group).is_some_and(|members| members.contains(member))
}

/// Every group that somebody is in or that a rule names.
async fn list(admin: &Admin) -> Told {
    let policy = admin.policy().await?;
    let mut groups: BTreeSet<_> = policy.groups.keys().collect();
    groups.extend(policy.rules().into_iter().filter_map(|rule| match &rule.grantee {
        Grantee::Group(group) => Some(group),
        _ => None,
    }));
    let objects = groups.into_iter().map(|group| {
        let members: Vec<_> = policy.groups.get(group).into_iter().flatten().collect();
        let rules = policy.rules_naming(&Grantee::Group(group.clone())).len();
        json!({ "name": group, "members": names(members), "rules": rules })
    });
    Ok(Report::list(
        objects.collect(),
        ["GROUP", "RULES", "MEMBERS"],
        ["name", "rules", "members"],
        "there are no groups; to make one: authctl group add devs USER",
    ))
}

fn names<'a>(members: impl IntoIterator<Item = &'a Subject>) -> Vec<String> {
    members.into_iter().map(ToString::to_string).collect()
}
