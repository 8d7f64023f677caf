//! Machines with a secret.

use berth_shared::{
    clock::UnixSeconds,
    rights::Rule,
    subject::{Grantee, RobotName},
};

use super::{Admin, Error, rules::naming};
use crate::{acl::policy::robots::Robot, secrets::robot::RobotSecret};

/// A robot that was made. Has no `Debug`: the secret is a credential, and kept nowhere.
pub struct Created {
    /// Its secret.
    pub secret: RobotSecret,
    /// The rules that name it.
    pub rules: Vec<Rule>,
}

/// A robot, and how many rules name it.
#[derive(Debug, Clone)]
pub struct Listed {
    /// The robot.
    pub robot: Robot,
    /// How many rules name it.
    pub rules: usize,
}

/// Whether a robot of this name can be made.
///
/// # Errors
/// [`Error::TrustNeedsNoSecret`] and [`Error::RobotThere`] where it cannot, and when the database
/// cannot be used.
pub async fn check_new(admin: &Admin, name: &RobotName) -> Result<(), Error> {
    let policy = admin.policy().await?;
    if policy.trusts.get(name).is_some() {
        return Err(Error::TrustNeedsNoSecret(name.clone()));
    }
    if policy.robots.get(name).is_some() {
        return Err(Error::RobotThere(name.clone()));
    }
    Ok(())
}

/// Makes a robot with its first rules.
///
/// # Errors
/// As [`check_new`], and when the database cannot be written to; nothing is made then.
pub async fn create(
    admin: &Admin,
    name: &RobotName,
    rules: &[Rule],
    expires: Option<UnixSeconds>,
) -> Result<Created, Error> {
    check_new(admin, name).await?;
    let secret = RobotSecret::generate().map_err(|_| Error::Randomness)?;
    let robot = Robot { name: name.clone(), created: admin.now(), expires, last_used: None };
    if !admin.database().await?.robots().create(&robot, &secret, rules).await? {
        return Err(Error::RobotThere(name.clone()));
    }
    Ok(Created { secret, rules: naming(admin, &Grantee::Robot(name.clone())).await? })
}

/// Every robot, by name.
///
/// # Errors
/// When the database cannot be used.
pub async fn list(admin: &Admin) -> Result<Vec<Listed>, Error> {
    let policy = admin.policy().await?;
    let listed = |robot: &Robot| Listed {
        robot: robot.clone(),
        rules: policy.rules_naming(&Grantee::Robot(robot.name.clone())).len(),
    };
    Ok(policy.robots.iter().map(listed).collect())
}

/// Removes a robot with its rules and groups, and voids its tokens; in a dry run nothing is done.
///
/// # Errors
/// [`Error::TrustHasNoSecret`] and [`Error::NoRobot`] where there is none, and when the database
/// cannot be written to.
pub async fn remove(admin: &Admin, name: &RobotName, dry_run: bool) -> Result<(), Error> {
    let policy = admin.policy().await?;
    if policy.trusts.get(name).is_some() {
        return Err(Error::TrustHasNoSecret(name.clone()));
    }
    let is_there = if dry_run {
        policy.robots.get(name).is_some()
    } else {
        admin.database().await?.robots().remove(name).await?
    };
    if is_there { Ok(()) } else { Err(Error::NoRobot(name.clone())) }
}
