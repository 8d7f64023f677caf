//! Trusts: machines that sign in with a token of an issuer of their own, and keep no secret.
//!
//! A trust says which tokens of which issuer make their bearer `robot.NAME`; what that may do is
//! said by grants, as for every robot. [`pattern`] and [`claims`] decide whether a token is meant,
//! [`keys`] keeps the issuers' keys and `fetch` gets them.
//!
//! Nothing of a token is believed before a key of that very trust has verified it: two clusters
//! may call themselves by one issuer's name.

pub mod claims;
mod fetch;
pub mod keys;
pub mod pattern;
pub mod url;

use std::{collections::BTreeMap, str::FromStr, sync::Arc};

use berth_shared::{
    clock::UnixSeconds,
    keys::{InvalidKeySet, KeySet},
    subject::RobotName,
    text::shown_as_str,
};
use serde::{Deserialize, Serialize};

pub use self::fetch::{FetchError, check_ca};
use self::{pattern::SubjectPattern, url::IssuerUrl};

/// The longest audience, and the longest name or value of a required claim, in bytes.
const TEXT_BYTES_MAX: usize = 512;

/// Keys that an issuer's set may hold. The known issuers publish two to ten.
const KEYS_MAX: usize = 64;

/// The longest key set, in bytes.
pub const KEY_SET_BYTES_MAX: usize = 256 * 1024;

/// Claims that every token is checked for in a way of their own.
const CHECKED_CLAIMS: [&str; 6] = ["iss", "aud", "sub", "exp", "iat", "nbf"];

/// Which tokens make their bearer the robot `name`.
#[derive(Debug, Clone)]
pub struct Trust {
    /// Whom the tokens stand for.
    pub name: RobotName,
    /// The exact `iss`.
    pub issuer: IssuerUrl,
    /// What `aud` must contain.
    pub audience: ExpectedAudience,
    /// What `sub` must be within.
    pub subject: SubjectPattern,
    /// What else must be in the token, word for word.
    pub claims: RequiredClaims,
    /// Where the issuer's keys come from.
    pub keys: KeySource,
    /// When the trust was made.
    pub created: UnixSeconds,
    /// When it was last used, give or take the time between two notes of it.
    pub last_used: Option<UnixSeconds>,
}

/// Where an issuer's keys come from.
#[derive(Debug, Clone)]
pub enum KeySource {
    /// A server gives them.
    Remote(Box<Remote>),
    /// They stand in the database.
    Inline(InlineKeys),
}

/// A server that gives an issuer's keys. Equal ones share what was fetched.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Remote {
    /// Who describes itself, where no address of keys is given.
    pub issuer: IssuerUrl,
    /// Where the keys are.
    pub keys_url: Option<IssuerUrl>,
    /// The only roots that the server is believed by, as PEM; the system's without.
    pub ca: Option<Arc<str>>,
}

/// A key set that an administrator wrote down.
#[derive(Debug, Clone)]
pub struct InlineKeys {
    text: String,
    keys: Arc<KeySet>,
}

/// The audience that tokens must be made for. Never empty: a token without one was made for
/// anybody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpectedAudience(String);

/// A claim and the text that it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequiredClaim {
    name: String,
    value: String,
}

/// Claims that must all be there. A token has each once, so that a name stands once here too.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequiredClaims(BTreeMap<String, String>);

/// A part of a trust makes no sense: what would.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(String);

shown_as_str!(ExpectedAudience: Invalid, SubjectPattern: Invalid, IssuerUrl: Invalid);

impl KeySource {
    /// The keys in the database, as they were written down.
    pub fn inline_text(&self) -> Option<&str> {
        if let Self::Inline(keys) = self { Some(&keys.text) } else { None }
    }

    /// The server that gives the keys.
    pub fn remote(&self) -> Option<&Remote> {
        if let Self::Remote(remote) = self { Some(remote) } else { None }
    }
}

impl FromStr for InlineKeys {
    type Err = InvalidKeySet;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let keys = KeySet::from_issuer(text.as_bytes(), KEYS_MAX)?;
        Ok(Self { text: text.to_owned(), keys: Arc::new(keys) })
    }
}

impl ExpectedAudience {
    /// The audience as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ExpectedAudience {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let rule = "without line ends or blanks around it";
        let invalid = || Invalid(format!("an audience is 1 to {TEXT_BYTES_MAX} bytes {rule}"));
        is_text(text).then(|| Self(text.to_owned())).ok_or_else(invalid)
    }
}

impl FromStr for RequiredClaim {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let pair = text.split_once('=').filter(|(name, value)| is_text(name) && is_text(value));
        let (name, value) = pair.ok_or_else(|| {
            Invalid(format!("{text:?}: write NAME=VALUE, as in repository_owner_id=9919"))
        })?;
        if CHECKED_CLAIMS.contains(&name) {
            let options = "see --issuer, --audience and --subject";
            return Err(Invalid(format!("the claim {name:?} is checked anyway: {options}")));
        }
        Ok(Self { name: name.to_owned(), value: value.to_owned() })
    }
}

impl RequiredClaims {
    /// All of these.
    ///
    /// # Errors
    /// When one is required twice.
    pub fn all(claims: impl IntoIterator<Item = RequiredClaim>) -> Result<Self, Invalid> {
        let mut all = BTreeMap::new();
        for RequiredClaim { name, value } in claims {
            if all.insert(name.clone(), value).is_some() {
                return Err(Invalid(format!("the claim {name:?} is required twice")));
            }
        }
        Ok(Self(all))
    }

    /// Names and values, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

fn is_text(text: &str) -> bool {
    (1..=TEXT_BYTES_MAX).contains(&text.len())
        && text.trim() == text
        && !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_audience_is_never_empty_and_checked_claims_have_options_of_their_own() {
        assert!("reg.homelab.lan".parse::<ExpectedAudience>().is_ok());
        for bad in ["", " ", "a ", "a\n", &"a".repeat(TEXT_BYTES_MAX + 1)] {
            assert!(bad.parse::<ExpectedAudience>().is_err(), "{bad:?}");
        }
        let claim = "repository_owner_id=a=b".parse::<RequiredClaim>().unwrap();
        assert_eq!((claim.name.as_str(), claim.value.as_str()), ("repository_owner_id", "a=b"));
        for bad in ["", "a", "=b", "a=", "a= b", "sub=x", "aud=x", "exp=1"] {
            assert!(bad.parse::<RequiredClaim>().is_err(), "{bad}");
        }
        let twice = RequiredClaims::all([claim.clone(), claim.clone()]).unwrap_err();
        assert!(twice.to_string().contains("required twice"), "{twice}");
        let once = RequiredClaims::all([claim]).unwrap();
        let json = serde_json::to_string(&once).unwrap();
        assert_eq!(json, r#"{"repository_owner_id":"a=b"}"#);
        assert_eq!(serde_json::from_str::<RequiredClaims>(&json).unwrap(), once);
    }
}
