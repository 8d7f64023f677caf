//! `authctl group`: users and robots that share rules.

use auth_server::acl::policy::Policy;
use berth_shared::subject::{Grantee, GroupName, InvalidUserName, Subject};
use clap::Subcommand;
use serde_json::json;

use crate::{
    report::{Failure, Report, table},
    site::Site,
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

pub(crate) async fn run(verb: Verb, site: &Site) -> Result<Report, Failure> {
    match verb {
        Verb::Add(members) => add(&members, site).await,
        Verb::Remove(members) => remove(&members, site).await,
        Verb::List => list(site).await,
    }
}

async fn add(arguments: &Members, site: &Site) -> Result<Report, Failure> {
    let Members { group, members, dry_run } = arguments;
    let database = site.database().await?;
    let policy = database.policy().await?;
    for grantee in members.iter().flat_map(|member| member.grantees().take(1)) {
        site.warn_of_nobody(&grantee, &policy);
    }
    let joined = if *dry_run {
        others(&policy, arguments, false)
    } else {
        database.groups().join(group, members).await?
    };
    let verb = match (*dry_run, members.len()) {
        (true, _) => "would be in",
        (false, 1) => "is in",
        (false, _) => "are in",
    };
    let text = format!("{} {verb} group:{group}", names(members).join(", "));
    Ok(Report::done(text, json!({ "group": group, "added": names(&joined), "dry_run": dry_run })))
}

async fn remove(arguments: &Members, site: &Site) -> Result<Report, Failure> {
    let Members { group, members, dry_run } = arguments;
    let database = site.database().await?;
    let left = if *dry_run {
        others(&*database.policy().await?, arguments, true)
    } else {
        database.groups().leave(group, members).await?
    };
    let verb = if *dry_run { "would leave" } else { "left" };
    let mut lines: Vec<_> =
        left.iter().map(|member| format!("{member} {verb} group:{group}")).collect();
    let missing = members.iter().filter(|member| !left.contains(member));
    lines.extend(missing.map(|member| format!("{member} is not in group:{group}")));
    let json = json!({ "group": group, "removed": names(&left), "dry_run": dry_run });
    Ok(Report { text: lines.join("\n"), json, is_no: left.len() < members.len() })
}

async fn list(site: &Site) -> Result<Report, Failure> {
    let policy = site.database().await?.policy().await?;
    let rules = |group: &GroupName| policy.rules_naming(&Grantee::Group(group.clone())).len();
    let mut groups: Vec<_> = policy.groups.keys().cloned().collect();
    groups.extend(policy.rules().into_iter().filter_map(|rule| match &rule.grantee {
        Grantee::Group(group) => Some(group.clone()),
        _ => None,
    }));
    groups.sort();
    groups.dedup();
    let members = |group: &GroupName| -> Vec<String> {
        policy.groups.get(group).into_iter().flatten().map(ToString::to_string).collect()
    };
    let json = groups
        .iter()
        .map(|group| json!({ "name": group, "members": members(group), "rules": rules(group) }));
    let json = json.collect();
    let rows: Vec<_> = groups
        .iter()
        .map(|group| [group.to_string(), rules(group).to_string(), members(group).join(", ")])
        .collect();
    let text = if rows.is_empty() {
        "there are no groups; to make one: authctl group add devs USER".to_owned()
    } else {
        table(["GROUP", "RULES", "MEMBERS"], &rows)
    };
    Ok(Report::done(text, json))
}

/// Those of the members who are in the group already, or who are not.
fn others(policy: &Policy, arguments: &Members, are_in: bool) -> Vec<Subject> {
    let now = policy.groups.get(&arguments.group);
    let is_in = |member: &&Subject| now.is_some_and(|now| now.contains(member)) == are_in;
    arguments.members.iter().filter(is_in).cloned().collect()
}

fn names(members: &[Subject]) -> Vec<String> {
    members.iter().map(ToString::to_string).collect()
}
