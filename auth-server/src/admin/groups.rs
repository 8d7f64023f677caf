//! Users and robots that share rules.

use std::collections::BTreeSet;

use berth_shared::subject::{Grantee, GroupName, Subject};

use super::{Admin, Error, Warning};

/// A group that somebody is in or that a rule names.
#[derive(Debug, Clone)]
pub struct Group {
    /// What it is called.
    pub name: GroupName,
    /// Who is in it.
    pub members: Vec<Subject>,
    /// How many rules name it.
    pub rules: usize,
}

/// What may not be meant of `members`.
///
/// # Errors
/// When the database cannot be used.
pub async fn warnings(admin: &Admin, members: &[Subject]) -> Result<Vec<Warning>, Error> {
    let policy = admin.policy().await?;
    let own = members.iter().flat_map(|member| member.grantees().take(1));
    Ok(own.filter_map(|grantee| Warning::of_nobody(&grantee, admin, &policy)).collect())
}

/// Puts `members` into `group`, or takes them out of it. Gives back those for whom that changed
/// something; in a dry run nothing is done.
///
/// # Errors
/// When the database cannot be written to; nothing is changed then.
pub async fn change(
    admin: &Admin,
    group: &GroupName,
    members: &[Subject],
    joins: bool,
    dry_run: bool,
) -> Result<Vec<Subject>, Error> {
    let database = admin.database().await?;
    Ok(match (dry_run, joins) {
        (false, true) => database.join_group(group, members).await?,
        (false, false) => database.leave_group(group, members).await?,
        (true, _) => {
            let policy = database.policy().await?;
            let now = policy.groups.get(group);
            let is_in = |member: &Subject| now.is_some_and(|now| now.contains(member));
            members.iter().filter(|member| is_in(member) != joins).cloned().collect()
        }
    })
}

/// Every group, by name.
///
/// # Errors
/// When the database cannot be used.
pub async fn list(admin: &Admin) -> Result<Vec<Group>, Error> {
    let policy = admin.policy().await?;
    let mut names: BTreeSet<_> = policy.groups.keys().cloned().collect();
    names.extend(policy.rules().into_iter().filter_map(|rule| match &rule.grantee {
        Grantee::Group(group) => Some(group.clone()),
        _ => None,
    }));
    let group = |name: GroupName| Group {
        members: policy.groups.get(&name).into_iter().flatten().cloned().collect(),
        rules: policy.rules_naming(&Grantee::Group(name.clone())).len(),
        name,
    };
    Ok(names.into_iter().map(group).collect())
}
