//! The names of users, robots and groups: one grammar, and which words mean something else.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::text::text_value;

/// The longest name of a user, a robot or a group, in bytes; a robot's with its prefix.
pub const USER_NAME_BYTES_MAX: usize = 64;

/// Nobody signed in, as grants write it.
pub(super) const ANONYMOUS: &str = "anonymous";
/// Any signed-in subject, as grants write it.
pub(super) const EVERYONE: &str = "everyone";
/// What every robot's user name begins with.
const ROBOT_PREFIX: &str = "robot.";
/// What a group is written with in a grant.
const GROUP_PREFIX: &str = "group:";

/// Why a text is not a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUserName {
    /// Outside the grammar.
    #[error("not a name: a letter or digit, then up to 63 letters, digits or any of . _ @ + -")]
    Grammar,
    /// A word that grants use for something else.
    #[error("reserved: anonymous, everyone and names beginning with \"robot.\" cannot be users")]
    Reserved,
}

/// `[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}`, compared as bytes.
fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphanumeric())
        && bytes.all(|b| b.is_ascii_alphanumeric() || b"._@+-".contains(&b))
        && text.len() <= USER_NAME_BYTES_MAX
}

/// A user name: `[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}`, compared as bytes.
///
/// `anonymous`, `everyone` and names beginning with `robot.` mean something else in a grant and
/// cannot be user names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UserName(String);

/// The name of a robot, written `robot.NAME`: what it signs in as. In the grammar of user names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RobotName(String);

/// The name of a group of users and robots, written `group:NAME` in a grant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GroupName(String);

impl UserName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl RobotName {
    /// The name as text, with its prefix.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl GroupName {
    /// The name as text, without the prefix that grants write.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Reads the group that a grant names, if it names one.
    pub(super) fn in_grant(text: &str) -> Option<Result<Self, InvalidUserName>> {
        text.strip_prefix(GROUP_PREFIX).map(str::parse)
    }

    /// The group as a grant writes it.
    pub(super) fn written(&self) -> String {
        format!("{GROUP_PREFIX}{}", self.0)
    }
}

impl FromStr for UserName {
    type Err = InvalidUserName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == ANONYMOUS || text == EVERYONE || text.starts_with(ROBOT_PREFIX) {
            return Err(InvalidUserName::Reserved);
        }
        is_name(text).then(|| Self(text.to_owned())).ok_or(InvalidUserName::Grammar)
    }
}

impl FromStr for RobotName {
    type Err = InvalidUserName;

    /// Reads a robot's name with its prefix.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_robot = text.strip_prefix(ROBOT_PREFIX).is_some_and(is_name);
        (is_robot && is_name(text)).then(|| Self(text.to_owned())).ok_or(InvalidUserName::Grammar)
    }
}

impl RobotName {
    /// Reads a robot's name with or without its prefix, as an administrator types it.
    ///
    /// # Errors
    /// When it is outside the grammar of user names, or too long with its prefix.
    pub fn from_typed(text: &str) -> Result<Self, InvalidUserName> {
        let name = text.strip_prefix(ROBOT_PREFIX).unwrap_or(text);
        format!("{ROBOT_PREFIX}{name}").parse()
    }
}

impl FromStr for GroupName {
    type Err = InvalidUserName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        is_name(text).then(|| Self(text.to_owned())).ok_or(InvalidUserName::Grammar)
    }
}

text_value!(UserName: InvalidUserName, RobotName: InvalidUserName, GroupName: InvalidUserName);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_names_follow_their_grammar_and_avoid_the_reserved_words() {
        let longest = "a".repeat(USER_NAME_BYTES_MAX);
        for good in ["andrew", "Andrew", "0", "a.b_c@d+e-f", "robot", &longest] {
            assert!(good.parse::<UserName>().is_ok(), "{good}");
            assert!(good.parse::<GroupName>().is_ok(), "{good}");
        }
        let too_long = "a".repeat(USER_NAME_BYTES_MAX + 1);
        for bad in ["", ".a", "-a", "a:b", "a/b", "a b", "é", "group:devs", &too_long] {
            assert!(bad.parse::<UserName>().is_err(), "{bad}");
            assert!(bad.parse::<GroupName>().is_err(), "{bad}");
        }
        for reserved in ["anonymous", "everyone", "robot.ci", "robot."] {
            assert!(reserved.parse::<UserName>().is_err(), "{reserved}");
        }
    }

    #[test]
    fn a_robots_name_has_its_prefix_however_it_is_typed() {
        for typed in ["ci", "robot.ci"] {
            assert_eq!(RobotName::from_typed(typed).unwrap().as_str(), "robot.ci");
        }
        assert!("ci".parse::<RobotName>().is_err());
        let too_long = "a".repeat(USER_NAME_BYTES_MAX - ROBOT_PREFIX.len() + 1);
        for bad in ["", "robot.", "a b", ".ci", &too_long] {
            assert!(RobotName::from_typed(bad).is_err(), "{bad}");
        }
    }
}
