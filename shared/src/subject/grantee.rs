//! Whom a grant names.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::names::{ANONYMOUS, EVERYONE, GroupName, InvalidUserName, RobotName, UserName};
use crate::text::through_text;

/// Whom a grant names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Grantee {
    /// Anybody at all.
    Anonymous,
    /// Any signed-in subject.
    Everyone,
    /// Every member of a group.
    Group(GroupName),
    /// One robot.
    Robot(RobotName),
    /// One user.
    User(UserName),
}

impl FromStr for Grantee {
    type Err = InvalidUserName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(group) = GroupName::in_grant(text) {
            return group.map(Self::Group);
        }
        match text {
            ANONYMOUS => Ok(Self::Anonymous),
            EVERYONE => Ok(Self::Everyone),
            name => match name.parse().map(Self::Robot) {
                Ok(robot) => Ok(robot),
                Err(_) => name.parse().map(Self::User),
            },
        }
    }
}

through_text!(Grantee: InvalidUserName);

impl fmt::Display for Grantee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.pad(ANONYMOUS),
            Self::Everyone => f.pad(EVERYONE),
            Self::Group(name) => f.pad(&name.written()),
            Self::Robot(name) => f.pad(name.as_str()),
            Self::User(name) => f.pad(name.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grantees_are_written_as_they_are_read() {
        for text in ["anonymous", "everyone", "group:devs", "robot.ci", "andrew", "robot"] {
            assert_eq!(text.parse::<Grantee>().unwrap().to_string(), text);
        }
        assert!(matches!("robot.ci".parse(), Ok(Grantee::Robot(_))));
        assert!(matches!("group:robot.ci".parse(), Ok(Grantee::Group(_))));
        for bad in ["", "group:", "group:a:b", "robot.", "groups:a"] {
            assert!(bad.parse::<Grantee>().is_err(), "{bad}");
        }
    }
}
