//! The acts that add and remove trusts.

use berth_shared::{clock::UnixSeconds, rights::Rule, subject::RobotName};

use super::{Database, Error, machines};
use crate::{audit::Act, trust::Trust};

impl Database {
    /// Adds a trust with its first rules. Whether it was added: not when there is a trust or a
    /// robot of that name. Rules that somebody granted to the name before are left as they are.
    ///
    /// # Errors
    /// When the database cannot be written to; nothing is added then.
    pub async fn add_trust(&self, trust: &Trust, rules: &[Rule]) -> Result<bool, Error> {
        let claims = serde_json::to_string(&trust.claims)?;
        let remote = trust.keys.remote();
        let keys_url = remote.and_then(|remote| remote.keys_url.as_ref());
        let insert =
            "INSERT INTO trusts (name, issuer, audience, subject, claims, keys_url, keys, ca, created)
             SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9
             WHERE NOT EXISTS (SELECT 1 FROM robots WHERE name = $1)
             ON CONFLICT (name) DO NOTHING";
        let values = (
            &trust.name,
            &trust.issuer,
            &trust.audience,
            &trust.subject,
            claims,
            keys_url,
            trust.keys.inline_text(),
            remote.and_then(|remote| remote.ca.as_deref()),
            trust.created,
        );
        let act = Act::TrustAdd(&trust.name, trust.issuer.as_str());
        machines::add(self, insert, values, &act, rules, trust.created).await
    }

    /// Removes a trust with its rules and groups, and voids its tokens. Whether there was one.
    ///
    /// # Errors
    /// When the database cannot be written to.
    pub async fn remove_trust(&self, name: &RobotName) -> Result<bool, Error> {
        let delete = "DELETE FROM trusts WHERE name = $1";
        machines::remove(self, delete, name, &Act::TrustRemove(name)).await
    }

    /// Notes that a token of the trust was exchanged.
    ///
    /// # Errors
    /// When the database cannot be written to.
    pub async fn note_trust(&self, name: &RobotName, now: UnixSeconds) -> Result<(), Error> {
        self.write("UPDATE trusts SET last_used = $2 WHERE name = $1", (name, now)).await
    }
}

#[cfg(test)]
mod tests {
    use berth_shared::subject::Subject;

    use super::{super::samples::allow, *};
    use crate::{
        database::policy::robots::Robot,
        secrets::robot::RobotSecret,
        trust::{KeySource, Remote, RequiredClaims},
    };

    fn trust(name: &str, keys: KeySource) -> Trust {
        Trust {
            name: name.parse().unwrap(),
            issuer: "https://issuer.test/".parse().unwrap(),
            audience: "reg.test".parse().unwrap(),
            subject: "repo:org/*:ref:refs/heads/main".parse().unwrap(),
            claims: RequiredClaims::all(["owner_id=7".parse().unwrap()]).unwrap(),
            keys,
            created: UnixSeconds::new(1),
            last_used: None,
        }
    }

    fn inline() -> KeySource {
        let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
        let key = format!(r#"{{"kty":"OKP","crv":"Ed25519","kid":"a","x":"{x}"}}"#);
        KeySource::Inline(format!(r#"{{"keys":[{key}]}}"#).parse().unwrap())
    }

    fn remote() -> KeySource {
        KeySource::Remote(Box::new(Remote {
            issuer: "https://issuer.test/".parse().unwrap(),
            keys_url: Some("https://keys.test/all".parse().unwrap()),
            ca: Some("pem".into()),
        }))
    }

    #[tokio::test]
    async fn a_trust_is_read_as_it_was_added_until_it_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let database = Database::open(&dir.path().join("auth.db")).await.unwrap();
        let rule = allow("robot.a", "team/app", "pull", None);
        for added in [trust("robot.a", inline()), trust("robot.b", remote())] {
            assert!(database.add_trust(&added, std::slice::from_ref(&rule)).await.unwrap());
            assert!(!database.add_trust(&added, &[]).await.unwrap());
            database.note_trust(&added.name, UnixSeconds::new(50)).await.unwrap();
            let policy = database.policy().await.unwrap();
            let read = policy.trusts.get(&added.name).unwrap();
            let expected = Trust { last_used: Some(UnixSeconds::new(50)), ..added };
            assert_eq!(
                (&read.issuer, &read.audience, &read.subject, &read.claims),
                (&expected.issuer, &expected.audience, &expected.subject, &expected.claims)
            );
            assert_eq!(read.keys.inline_text(), expected.keys.inline_text());
            assert_eq!(read.keys.remote(), expected.keys.remote());
            assert_eq!(
                (read.created, read.last_used),
                (UnixSeconds::new(1), Some(UnixSeconds::new(50)))
            );
        }
        let a: RobotName = "robot.a".parse().unwrap();
        assert!(database.remove_trust(&a).await.unwrap());
        assert!(!database.remove_trust(&a).await.unwrap());
        let policy = database.policy().await.unwrap();
        assert!(!policy.trusts.contains_key(&a) && policy.rules().is_empty());
        assert_eq!(policy.revocations.least_for(&Subject::Robot(a)), 1);
    }

    #[tokio::test]
    async fn a_name_is_a_robots_or_a_trusts() {
        let dir = tempfile::tempdir().unwrap();
        let database = Database::open(&dir.path().join("auth.db")).await.unwrap();
        let robot = |name: &str| Robot {
            name: name.parse().unwrap(),
            created: UnixSeconds::new(1),
            expires: None,
            last_used: None,
        };
        let secret = RobotSecret::generate().unwrap();
        assert!(database.create_robot(&robot("robot.a"), &secret, &[]).await.unwrap());
        assert!(!database.add_trust(&trust("robot.a", inline()), &[]).await.unwrap());
        assert!(database.add_trust(&trust("robot.b", inline()), &[]).await.unwrap());
        let secret = RobotSecret::generate().unwrap();
        assert!(!database.create_robot(&robot("robot.b"), &secret, &[]).await.unwrap());
        assert!(!database.remove_robot(&"robot.b".parse().unwrap()).await.unwrap());
        assert!(!database.remove_trust(&"robot.a".parse().unwrap()).await.unwrap());
    }
}
