//! What a person should know before something is done, which may be a typing error.

use std::fmt;

use berth_shared::{pattern::Pattern, rights::Rule, subject::Grantee};

use super::Admin;
use crate::database::policy::Policy;

/// Something that may not be what was meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Warning {
    /// Nobody is called that.
    #[error("{0} yet; {mend}", mend = .0.mend())]
    Nobody(Nobody),
    /// A rule is written with the registry's own name in front: it holds for a repository that
    /// nobody means.
    #[error("{host} is this registry's own name, which no repository's begins with: write {rest}")]
    OwnHost {
        /// The registry's name.
        host: String,
        /// What comes after it.
        rest: String,
    },
    /// A rule for whoever is not signed in has the name of who is in it.
    #[error("nobody is signed in who is anonymous: a rule with ${{user}} never holds for them")]
    NameOfAnonymous,
    /// A grant gives what a deny takes away, on some of its repositories at least.
    #[error(
        "a deny wins over it: {} {}:{}; to take that back: authctl deny --remove {} '{}:{}'",
        .0.grantee, .0.pattern, .0.actions, .0.grantee, .0.pattern, .0.actions
    )]
    Denied(Rule),
}

/// Who is named and is not there: it may be somebody who is yet to come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nobody(pub(super) Grantee);

impl Nobody {
    /// Whether `grantee` is nobody: a user, a robot and a trust, or a group that is not there.
    pub fn of(grantee: &Grantee, admin: &Admin, policy: &Policy) -> Option<Self> {
        let is_there = match grantee {
            Grantee::User(name) => admin.users().users.contains_key(name),
            Grantee::Robot(name) => {
                policy.robots.get(name).is_some() || policy.trusts.contains_key(name)
            }
            Grantee::Group(name) => policy.groups.contains_key(name),
            Grantee::Everyone | Grantee::Anonymous => true,
        };
        (!is_there).then(|| Self(grantee.clone()))
    }

    /// How to make them somebody.
    fn mend(&self) -> String {
        match &self.0 {
            Grantee::User(name) => format!("to add one: authctl user add {name}"),
            Grantee::Group(name) => format!("to add somebody: authctl group add {name} USER"),
            other => format!(
                "to make it: authctl robot create {other} (a secret) or authctl trust add {other} \
                 (its issuer's tokens)"
            ),
        }
    }
}

impl fmt::Display for Nobody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Grantee::User(name) => write!(f, "there is no user {name}"),
            Grantee::Group(name) => write!(f, "nobody is in group:{name}"),
            other => write!(f, "there is no {other}"),
        }
    }
}

impl Warning {
    /// That nobody is called `grantee`, if so.
    pub(super) fn of_nobody(grantee: &Grantee, admin: &Admin, policy: &Policy) -> Option<Self> {
        Nobody::of(grantee, admin, policy).map(Self::Nobody)
    }

    /// Of each pattern that begins with a name by which the registry is reached.
    pub(super) fn of_host(patterns: &[&Pattern], admin: &Admin) -> Vec<Self> {
        let Some(certificates) = &admin.config.certificates else { return Vec::new() };
        let Ok(found) = certificates.find(admin.clock()) else { return Vec::new() };
        let begins = |pattern: &&Pattern| {
            let (host, rest) = pattern.as_str().split_once('/')?;
            let is_own = found.hosts().iter().any(|own| own.to_string() == host);
            is_own.then(|| Self::OwnHost { host: host.to_owned(), rest: rest.to_owned() })
        };
        patterns.iter().filter_map(begins).collect()
    }
}
