//! The robots, as the policy knows them.

use std::collections::{BTreeMap, HashMap};

use berth_shared::{
    clock::UnixSeconds,
    database::{Connection, Statements, row},
    subject::RobotName,
};

use super::super::Error;
use crate::secrets::robot::RobotSecret;

/// What is known of a robot besides its rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Robot {
    /// What it signs in as.
    pub name: RobotName,
    /// When it was made.
    pub created: UnixSeconds,
    /// When its secret stops to be one; never when absent.
    pub expires: Option<UnixSeconds>,
    /// When it last signed in, give or take the time between two notes of it.
    pub last_used: Option<UnixSeconds>,
}

/// The same with the hash of its secret.
struct Stored {
    secret_hash: String,
    robot: Robot,
}

row!(Robot { name, created, expires, last_used });
row!(Stored { secret_hash }, robot);

impl Robot {
    /// Whether it may sign in at `now`.
    #[must_use]
    pub fn holds_at(&self, now: UnixSeconds) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }
}

/// Every robot, by its name and by the hash of its secret.
#[derive(Debug, Default)]
pub struct Robots {
    /// Each with the hash of its secret.
    all: BTreeMap<RobotName, (Robot, String)>,
    by_hash: HashMap<String, RobotName>,
}

impl Robots {
    /// Every robot, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Robot> {
        self.all.values().map(|(robot, _)| robot)
    }

    /// The robot of this name.
    #[must_use]
    pub fn get(&self, name: &RobotName) -> Option<&Robot> {
        self.all.get(name).map(|(robot, _)| robot)
    }

    /// Whose secret this is. Looked up by its hash: what the time of that tells is about the hash
    /// of a guess, and says nothing about any secret.
    #[must_use]
    pub fn who_has(&self, secret: &RobotSecret) -> Option<&Robot> {
        self.by_hash.get(&secret.hash()).and_then(|name| self.get(name))
    }

    /// What the secret of this robot hashes to: it tells one secret of a name from the next.
    #[must_use]
    pub fn secret_hash(&self, name: &RobotName) -> Option<&str> {
        self.all.get(name).map(|(_, hash)| hash.as_str())
    }

    pub(super) async fn read(connection: &mut Connection<'_>) -> Result<Self, Error> {
        let mut robots = Self::default();
        let statement = "SELECT name, secret_hash, created, expires, last_used FROM robots";
        for Stored { secret_hash, robot } in connection.all(statement, ()).await? {
            robots.by_hash.insert(secret_hash.clone(), robot.name.clone());
            robots.all.insert(robot.name.clone(), (robot, secret_hash));
        }
        Ok(robots)
    }
}
