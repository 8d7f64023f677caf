//! The acts that make and remove robots.

use berth_shared::{clock::UnixSeconds, rights::Rule, subject::RobotName};

use super::{Database, Error, machines, policy::robots::Robot};
use crate::{audit::Act, secrets::robot::RobotSecret};

impl Database {
    /// Makes a robot with its first rules. Whether it was made: not when there is one or a
    /// trust of that name. Rules that somebody granted to the name before are left as they are.
    ///
    /// # Errors
    /// When the database cannot be written to; nothing is made then.
    pub async fn create_robot(
        &self,
        robot: &Robot,
        secret: &RobotSecret,
        rules: &[Rule],
    ) -> Result<bool, Error> {
        let insert =
            "INSERT INTO robots (name, secret_hash, created, expires) SELECT $1, $2, $3, $4
             WHERE NOT EXISTS (SELECT 1 FROM trusts WHERE name = $1)
             ON CONFLICT (name) DO NOTHING";
        let values = (&robot.name, secret.hash(), robot.created, robot.expires);
        let act = Act::RobotCreate(&robot.name, robot.expires);
        machines::add(self, insert, values, &act, rules, robot.created).await
    }

    /// Removes a robot with its rules and groups, and voids its tokens. Whether there was one.
    ///
    /// # Errors
    /// When the database cannot be written to.
    pub async fn remove_robot(&self, name: &RobotName) -> Result<bool, Error> {
        let delete = "DELETE FROM robots WHERE name = $1";
        machines::remove(self, delete, name, &Act::RobotRevoke(name)).await
    }

    /// Notes that a robot signed in.
    ///
    /// # Errors
    /// When the database cannot be written to.
    pub async fn note_robot(&self, name: &RobotName, now: UnixSeconds) -> Result<(), Error> {
        self.write("UPDATE robots SET last_used = $2 WHERE name = $1", (name, now)).await
    }
}

#[cfg(test)]
mod tests {
    use berth_shared::subject::Subject;

    use super::{super::samples::allow, *};

    fn robot(expires: Option<UnixSeconds>) -> Robot {
        Robot {
            name: "robot.ci".parse().unwrap(),
            created: UnixSeconds::new(1),
            expires,
            last_used: None,
        }
    }

    #[tokio::test]
    async fn a_robot_is_known_by_its_secret_until_it_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let database = Database::open(&dir.path().join("auth.db")).await.unwrap();
        let (one, two) = (RobotSecret::generate().unwrap(), RobotSecret::generate().unwrap());
        let rule = allow("robot.ci", "team/app", "pull", None);
        assert!(
            database
                .create_robot(&robot(Some(UnixSeconds::new(100))), &one, &[rule])
                .await
                .unwrap()
        );
        assert!(!database.create_robot(&robot(None), &two, &[]).await.unwrap());
        database.note_robot(&robot(None).name, UnixSeconds::new(50)).await.unwrap();
        let policy = database.policy().await.unwrap();
        let known = policy.robots.who_has(&one).unwrap();
        assert_eq!(
            (known.expires, known.last_used),
            (Some(UnixSeconds::new(100)), Some(UnixSeconds::new(50)))
        );
        assert!(known.holds_at(UnixSeconds::new(99)) && !known.holds_at(UnixSeconds::new(100)));
        assert!(policy.robots.who_has(&two).is_none());
        let subject = Subject::Robot(known.name.clone());
        assert_eq!(policy.rights(&subject).rules.len(), 1);
        assert!(database.remove_robot(&known.name).await.unwrap());
        assert!(!database.remove_robot(&known.name).await.unwrap());
        let policy = database.policy().await.unwrap();
        assert!(policy.robots.who_has(&one).is_none() && policy.rules().is_empty());
        assert_eq!(policy.revocations.least_for(&subject), 1);
    }
}
