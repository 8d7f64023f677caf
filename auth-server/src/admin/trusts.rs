//! Machines that sign in with tokens of an issuer of their own.

use berth_shared::{
    rights::Rule,
    subject::{Grantee, RobotName},
};

use super::{Admin, Error, rules::naming};
use crate::{database::policy::Policy, trust::Trust};

/// Whether a trust of this name can be added.
///
/// # Errors
/// [`Error::RobotHasSecret`] and [`Error::TrustThere`] where it cannot, and when the database cannot
/// be used.
pub async fn check_new(admin: &Admin, name: &RobotName) -> Result<(), Error> {
    taken(name, &*admin.policy().await?).map_or(Ok(()), Err)
}

/// Adds a trust with its first rules. Gives back those that name it from then on.
///
/// # Errors
/// As [`check_new`], and when the database cannot be written to; nothing is added then.
pub async fn add(admin: &Admin, trust: &Trust, rules: &[Rule]) -> Result<Vec<Rule>, Error> {
    let name = &trust.name;
    check_new(admin, name).await?;
    if !admin.database().await?.add_trust(trust, rules).await? {
        let policy = admin.policy().await?;
        return Err(taken(name, &policy).unwrap_or_else(|| Error::Meanwhile(name.clone())));
    }
    naming(admin, &Grantee::Robot(name.clone())).await
}

/// Every trust, by name, and how many rules name it.
///
/// # Errors
/// When the database cannot be used.
pub async fn list(admin: &Admin) -> Result<Vec<(Trust, usize)>, Error> {
    let policy = admin.policy().await?;
    let rules = |name: &RobotName| policy.rules_naming(&Grantee::Robot(name.clone())).len();
    Ok(policy.trusts.values().map(|trust| (trust.clone(), rules(&trust.name))).collect())
}

/// Removes a trust with its rules and groups, and voids its tokens; in a dry run nothing is done.
///
/// # Errors
/// [`Error::NoTrust`] where there is none, and when the database cannot be written to.
pub async fn remove(admin: &Admin, name: &RobotName, dry_run: bool) -> Result<(), Error> {
    let is_there = if dry_run {
        admin.policy().await?.trusts.contains_key(name)
    } else {
        admin.database().await?.remove_trust(name).await?
    };
    if is_there { Ok(()) } else { Err(Error::NoTrust(name.clone())) }
}

/// Why there cannot be a trust of this name, if so.
fn taken(name: &RobotName, policy: &Policy) -> Option<Error> {
    if policy.robots.get(name).is_some() {
        return Some(Error::RobotHasSecret(name.clone()));
    }
    policy.trusts.get(name).map(|_| Error::TrustThere(name.clone()))
}
