//! Who a token speaks for, and whom a grant names.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The longest user name, in bytes.
pub const USER_NAME_BYTES_MAX: usize = 64;

/// A user name: `[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}`, compared as bytes.
///
/// `anonymous`, `everyone` and names beginning with `robot.` mean something else in a grant and
/// cannot be user names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UserName(String);

/// Why a text is not a user name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUserName {
    /// Outside the grammar.
    #[error(
        "not a user name: a letter or digit, then up to 63 letters, digits or any of . _ @ + -"
    )]
    Grammar,
    /// A word that grants use for something else.
    #[error("reserved: anonymous, everyone and names beginning with \"robot.\" cannot be users")]
    Reserved,
}

impl UserName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for UserName {
    type Err = InvalidUserName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = text.bytes();
        let first = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric());
        let rest = bytes.all(|b| b.is_ascii_alphanumeric() || b"._@+-".contains(&b));
        if !first || !rest || text.len() > USER_NAME_BYTES_MAX {
            return Err(InvalidUserName::Grammar);
        }
        if text == ANONYMOUS || text == EVERYONE || text.starts_with("robot.") {
            return Err(InvalidUserName::Reserved);
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for UserName {
    type Error = InvalidUserName;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<UserName> for String {
    fn from(name: UserName) -> Self {
        name.0
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

const ANONYMOUS: &str = "anonymous";
const EVERYONE: &str = "everyone";

/// Who asks: the `sub` of a token.
///
/// Anonymous is a variant of its own, so that no user name can be mistaken for it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// Nobody signed in; `sub` is empty.
    Anonymous,
    /// A signed-in user.
    User(UserName),
    /// Whoever a foreign issuer names, in a grammar of its own.
    Foreign(String),
}

impl Subject {
    /// The `sub` claim: the user name, or nothing for anonymous.
    #[must_use]
    pub fn claim(&self) -> &str {
        match self {
            Self::Anonymous => "",
            Self::User(name) => name.as_str(),
            Self::Foreign(name) => name,
        }
    }

    /// Reads a `sub` claim.
    ///
    /// # Errors
    /// When it is neither empty nor a user name.
    pub fn from_claim(claim: &str) -> Result<Self, InvalidUserName> {
        if claim.is_empty() { Ok(Self::Anonymous) } else { claim.parse().map(Self::User) }
    }

    /// Every grantee that this subject is: itself, `everyone` when signed in, and `anonymous`
    /// always, since signing in must not take away what nobody needs to sign in for.
    pub fn grantees(&self) -> impl Iterator<Item = Grantee> {
        let grantees = match self {
            Self::Anonymous => vec![Grantee::Anonymous],
            Self::User(name) => {
                vec![Grantee::User(name.clone()), Grantee::Everyone, Grantee::Anonymous]
            }
            // Berth's grants say nothing about somebody else's users.
            Self::Foreign(_) => Vec::new(),
        };
        grantees.into_iter()
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str(ANONYMOUS),
            Self::User(name) => name.fmt(f),
            Self::Foreign(name) => name.fmt(f),
        }
    }
}

/// Whom a grant names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Grantee {
    /// Whoever is not signed in.
    Anonymous,
    /// Any signed-in subject.
    Everyone,
    /// One user.
    User(UserName),
}

impl FromStr for Grantee {
    type Err = InvalidUserName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            ANONYMOUS => Ok(Self::Anonymous),
            EVERYONE => Ok(Self::Everyone),
            name => name.parse().map(Self::User),
        }
    }
}

impl TryFrom<String> for Grantee {
    type Error = InvalidUserName;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Grantee> for String {
    fn from(grantee: Grantee) -> Self {
        grantee.to_string()
    }
}

impl fmt::Display for Grantee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str(ANONYMOUS),
            Self::Everyone => f.write_str(EVERYONE),
            Self::User(name) => name.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_names_follow_their_grammar_and_avoid_the_reserved_words() {
        let longest = "a".repeat(USER_NAME_BYTES_MAX);
        for good in ["andrew", "Andrew", "0", "a.b_c@d+e-f", "robot", &longest] {
            assert!(good.parse::<UserName>().is_ok(), "{good}");
        }
        let too_long = "a".repeat(USER_NAME_BYTES_MAX + 1);
        for bad in [
            "",
            ".a",
            "-a",
            "a:b",
            "a/b",
            "a b",
            "é",
            "group:devs",
            "anonymous",
            "everyone",
            "robot.ci",
            &too_long,
        ] {
            assert!(bad.parse::<UserName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn anonymous_is_nobody_else() {
        assert_eq!(Subject::from_claim(""), Ok(Subject::Anonymous));
        assert!(Subject::from_claim("anonymous").is_err());
        assert_eq!(Subject::Anonymous.grantees().collect::<Vec<_>>(), [Grantee::Anonymous]);
        let user = Subject::User("andrew".parse().unwrap());
        assert!(user.grantees().any(|grantee| grantee == Grantee::Anonymous));
    }
}
