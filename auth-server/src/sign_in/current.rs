//! Who there is and what each may do, as both are now.

use std::sync::Arc;

use berth_shared::{
    clock::UnixSeconds,
    rights::Rights,
    subject::{RobotName, Subject},
};

use crate::{
    database::{self, Database, policy::Policy},
    users::{source::Users, store::UserSet},
};

/// How often rules and users are read again because the file was edited meanwhile. Beyond that
/// they are used as they are, and the token may be void, which is safe.
const READINGS_MAX: usize = 8;

/// Users and rules that belong together; see [`of`](Self::of).
pub(crate) struct Current {
    pub(crate) policy: Arc<Policy>,
    pub(crate) users: Arc<UserSet>,
}

impl Current {
    /// The rules, and users that are no older than they.
    ///
    /// The order is a security property. The policy, with its sequence, is read first and the
    /// users are made fresh after it: a password that is changed or a user who is removed later
    /// raises the sequence, so a token that carries the one read here is void. If making them
    /// fresh has raised it itself, the policy is read again, since a token for the new password
    /// would be void otherwise; and the users are looked at again after that, for the same reason.
    pub(crate) async fn of(database: &Database, users: &Users) -> Result<Self, database::Error> {
        let mut tries = 0..READINGS_MAX;
        loop {
            let policy = database.policy().await?;
            let users = users.with(&policy).await?;
            if users.reconciled <= policy.sequence || tries.next().is_none() {
                return Ok(Self { policy, users });
            }
        }
    }

    /// What `subject` may do; somebody who is gone has no rights.
    pub(crate) fn rights(&self, subject: &Subject, now: UnixSeconds) -> Rights {
        let is_gone = match subject {
            Subject::Anonymous => false,
            Subject::User(name) => !self.users.hashes.contains_key(name),
            Subject::Robot(name) => !self.can_sign_in(name, now),
            Subject::Foreign(_) => true,
        };
        if is_gone { Rights::default() } else { self.policy.rights(subject) }
    }

    /// What tells the credential that `subject` has now from any other, if it is good for signing
    /// in.
    pub(super) fn credential(&self, subject: &Subject, now: UnixSeconds) -> Option<String> {
        match subject {
            Subject::User(name) => {
                self.users.hashes.get(name).map(|stored| stored.fingerprint(name))
            }
            Subject::Robot(name) if self.can_sign_in(name, now) => {
                self.policy.robots.secret_hash(name).map(ToOwned::to_owned)
            }
            _ => None,
        }
    }

    /// Whether there is such a robot and its secret still holds, or such a trust.
    fn can_sign_in(&self, robot: &RobotName, now: UnixSeconds) -> bool {
        self.policy.robots.get(robot).is_some_and(|robot| robot.holds_at(now))
            || self.policy.trusts.contains_key(robot)
    }
}
