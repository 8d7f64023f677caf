//! The names of users, robots and groups: one grammar, and which words mean something else.

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
fn check(text: &str) -> Result<(), InvalidUserName> {
    let mut bytes = text.bytes();
    let is_name = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric())
        && bytes.all(|b| b.is_ascii_alphanumeric() || b"._@+-".contains(&b))
        && text.len() <= USER_NAME_BYTES_MAX;
    is_name.then_some(()).ok_or(InvalidUserName::Grammar)
}

text_value! {
    /// A user name: `[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}`, compared as bytes.
    ///
    /// `anonymous`, `everyone` and names beginning with `robot.` mean something else in a grant and
    /// cannot be user names.
    pub struct UserName: InvalidUserName, check_user
}

text_value! {
    /// The name of a robot, written `robot.NAME`: what it signs in as. In the grammar of user names.
    pub struct RobotName: InvalidUserName, check_robot
}

text_value! {
    /// The name of a group of users and robots, written `group:NAME` in a grant, and as text without
    /// that prefix.
    pub struct GroupName: InvalidUserName, check
}

impl GroupName {
    /// Reads the group that a grant names, if it names one.
    pub(super) fn in_grant(text: &str) -> Option<Result<Self, InvalidUserName>> {
        text.strip_prefix(GROUP_PREFIX).map(str::parse)
    }

    /// The group as a grant writes it.
    pub(super) fn written(&self) -> String {
        format!("{GROUP_PREFIX}{}", self.0)
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

fn check_user(text: &str) -> Result<(), InvalidUserName> {
    if text == ANONYMOUS || text == EVERYONE || text.starts_with(ROBOT_PREFIX) {
        return Err(InvalidUserName::Reserved);
    }
    check(text)
}

fn check_robot(text: &str) -> Result<(), InvalidUserName> {
    check(text.strip_prefix(ROBOT_PREFIX).ok_or(InvalidUserName::Grammar)?)?;
    check(text)
}

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
