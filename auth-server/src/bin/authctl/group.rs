//! `authctl group`: users and robots that share rules.

use auth_server::admin::{
    Admin,
    groups::{self, Group},
};
use berth_shared::subject::{Grantee, GroupName, InvalidUserName, Subject};
use clap::Subcommand;
use serde_json::json;

use crate::report::{Report, Told, warn_of};

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
#[command(after_help = include_str!("help/group.txt"))]
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
    warn_of(&groups::warnings(admin, members).await?);
    let joined = groups::change(admin, group, members, true, *dry_run).await?;
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
    let left = groups::change(admin, group, members, false, *dry_run).await?;
    let verb = if *dry_run { "would leave" } else { "left" };
    let mut lines: Vec<_> =
        left.iter().map(|member| format!("{member} {verb} group:{group}")).collect();
    let missing = members.iter().filter(|member| !left.contains(member));
    lines.extend(missing.map(|member| format!("{member} is not in group:{group}")));
    let json = json!({ "group": group, "removed": names(&left), "dry_run": dry_run });
    Ok(Report { text: lines.join("\n"), json, is_no: left.len() < members.len() })
}

async fn list(admin: &Admin) -> Told {
    let groups = groups::list(admin).await?;
    let objects = groups.iter().map(|Group { name, members, rules }| {
        json!({ "name": name, "members": names(members), "rules": rules })
    });
    Ok(Report::list(
        objects.collect(),
        ["GROUP", "RULES", "MEMBERS"],
        ["name", "rules", "members"],
        "there are no groups; to make one: authctl group add devs USER",
    ))
}

fn names(members: &[Subject]) -> Vec<String> {
    members.iter().map(ToString::to_string).collect()
}
