//! Who a token speaks for, and whom a grant names.

mod grantee;
mod names;

use std::fmt;

use self::names::ANONYMOUS;
pub use self::{
    grantee::Grantee,
    names::{GroupName, InvalidUserName, RobotName, USER_NAME_BYTES_MAX, UserName},
};

/// Who asks: the `sub` of a token.
///
/// Anonymous is a variant of its own, so that no user name can be mistaken for it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// Nobody signed in; `sub` is empty.
    Anonymous,
    /// A signed-in user.
    User(UserName),
    /// A robot that showed its secret.
    Robot(RobotName),
    /// Whoever a foreign issuer names, in a grammar of its own.
    Foreign(String),
}

impl Subject {
    /// The `sub` claim: the user name, or nothing for anonymous.
    pub fn claim(&self) -> &str {
        match self {
            Self::Anonymous => "",
            Self::User(name) => name.as_str(),
            Self::Robot(name) => name.as_str(),
            Self::Foreign(name) => name,
        }
    }

    /// Reads a `sub` claim.
    ///
    /// # Errors
    /// When it is neither empty nor the name of a user or robot.
    pub fn from_claim(claim: &str) -> Result<Self, InvalidUserName> {
        if claim.is_empty() {
            return Ok(Self::Anonymous);
        }
        claim.parse().map(Self::Robot).or_else(|_| claim.parse().map(Self::User))
    }

    /// Every grantee that this subject is by itself: its own name, `everyone` when signed in, and
    /// `anonymous` always, since signing in must not take away what nobody needs to sign in for.
    /// Its groups are known to the database alone.
    pub fn grantees(&self) -> impl Iterator<Item = Grantee> {
        let own = match self {
            Self::Anonymous => None,
            Self::User(name) => Some(Grantee::User(name.clone())),
            Self::Robot(name) => Some(Grantee::Robot(name.clone())),
            // Berth's grants say nothing about somebody else's users.
            Self::Foreign(_) => return Vec::new().into_iter(),
        };
        let everyone = own.as_ref().map(|_| Grantee::Everyone);
        let all: Vec<_> = own.into_iter().chain(everyone).chain([Grantee::Anonymous]).collect();
        all.into_iter()
    }

    /// What `${user}` stands for in a pattern: the name of a user.
    pub fn user(&self) -> Option<&UserName> {
        if let Self::User(name) = self { Some(name) } else { None }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::Anonymous { ANONYMOUS } else { self.claim() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anonymous_is_nobody_else() {
        assert_eq!(Subject::from_claim(""), Ok(Subject::Anonymous));
        assert!(Subject::from_claim("anonymous").is_err());
        assert_eq!(Subject::Anonymous.grantees().collect::<Vec<_>>(), [Grantee::Anonymous]);
        let user = Subject::User("andrew".parse().unwrap());
        assert!(user.grantees().any(|grantee| grantee == Grantee::Anonymous));
    }

    #[test]
    fn a_robot_is_no_user() {
        let robot = Subject::from_claim("robot.ci").unwrap();
        assert!(matches!(&robot, Subject::Robot(name) if name.as_str() == "robot.ci"));
        assert_eq!(robot.claim(), "robot.ci");
        assert!(robot.user().is_none());
        let everyone = robot.grantees().nth(1);
        assert_eq!(everyone, Some(Grantee::Everyone));
    }
}
