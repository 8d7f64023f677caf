//! Machines with a secret.

use berth_shared::{
    clock::UnixSeconds,
    rights::Rule,
    subject::{Grantee, RobotName},
};

use super::{Admin, Error, rules::naming};
use crate::{database::policy::robots::Robot, secrets::robot::RobotSecret};

/// Whether a robot of this name can be made.
///
/// # Errors
/// [`Error::TrustNeedsNoSecret`] and [`Error::RobotThere`] where it cannot, and when the database
/// cannot be used.
pub async fn check_new(admin: &Admin, name: &RobotName) -> Result<(), Error> {
    let policy = admin.policy().await?;
    if policy.trusts.contains_key(name) {
        return Err(Error::TrustNeedsNoSecret(name.clone()));
    }
    if policy.robots.get(name).is_some() {
        return Err(Error::RobotThere(name.clone()));
    }
    Ok(())
}

/// Makes a robot with its first rules. Gives its secret, which is kept nowhere, and the rules that
/// name it.
///
/// # Errors
/// As [`check_new`], and when the database cannot be written to; nothing is made then.
pub async fn create(
    admin: &Admin,
    name: &RobotName,
    rules: &[Rule],
    expires: Option<UnixSeconds>,
) -> Result<(RobotSecret, Vec<Rule>), Error> {
    check_new(admin, name).await?;
    let secret = RobotSecret::generate().map_err(|_| Error::Randomness)?;
    let robot = Robot { name: name.clone(), created: admin.now(), expires, last_used: None };
    if !admin.database().await?.create_robot(&robot, &secret, rules).await? {
        return Err(Error::RobotThere(name.clone()));
    }
    Ok((secret, naming(admin, &Grantee::Robot(name.clone())).await?))
}

/// Every robot, by name, and how many rules name it.
///
/// # Errors
/// When the database cannot be used.
pub async fn list(admin: &Admin) -> Result<Vec<(Robot, usize)>, Error> {
    let policy = admin.policy().await?;
    let rules = |name: &RobotName| policy.rules_naming(&Grantee::Robot(name.clone())).len();
    Ok(policy.robots.iter().map(|robot| (robot.clone(), rules(&robot.name))).collect())
}

/// Removes a robot with its rules and groups, and voids its tokens; in a dry run nothing is done.
///
/// # Errors
/// [`Error::TrustHasNoSecret`] and [`Error::NoRobot`] where there is none, and when the database
/// cannot be written to.
pub async fn remove(admin: &Admin, name: &RobotName, dry_run: bool) -> Result<(), Error> {
    let policy = admin.policy().await?;
    if policy.trusts.contains_key(name) {
        return Err(Error::TrustHasNoSecret(name.clone()));
    }
    let is_there = if dry_run {
        policy.robots.get(name).is_some()
    } else {
        admin.database().await?.remove_robot(name).await?
    };
    if is_there { Ok(()) } else { Err(Error::NoRobot(name.clone())) }
}
