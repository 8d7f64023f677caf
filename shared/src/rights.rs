//! Rules and the one function that decides by them: allows add up, a deny wins over every allow,
//! order never matters.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{
    action::{Action, Actions},
    clock::UnixSeconds,
    name::RepositoryName,
    pattern::Pattern,
    subject::{Grantee, UserName},
    text::words,
};

words! {
    /// What a rule does with the actions that it names.
    #[derive(
        Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
    )]
    #[serde(rename_all = "lowercase")]
    pub enum Effect {
        /// It gives them.
        #[default]
        Allow = "allow",
        /// It takes them away, whatever gives them.
        Deny = "deny",
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// The word is no effect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a rule allows or denies, and {0:?} is neither")]
pub struct UnknownEffect(String);

impl FromStr for Effect {
    type Err = UnknownEffect;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Allow, Self::Deny]
            .into_iter()
            .find(|effect| effect.word() == text)
            .ok_or_else(|| UnknownEffect(text.to_owned()))
    }
}

/// One rule: these actions, on the repositories within this pattern, until it expires.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Rule {
    /// Whom the rule names.
    pub grantee: Grantee,
    /// Which repositories it covers.
    pub pattern: Pattern,
    /// Whether it gives or takes away.
    pub effect: Effect,
    /// What it names, as it was typed (`push` without its implied `pull`).
    pub actions: Actions,
    /// When it stops to hold; never when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<UnixSeconds>,
}

impl Rule {
    /// Whether the rule still holds at `now`.
    pub fn holds_at(&self, now: UnixSeconds) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }

    /// The actions that the rule decides about. Allowing `push` allows `pull`, which no client can
    /// push without; denying `push` leaves `pull`.
    pub fn decides(&self) -> Actions {
        match self.effect {
            Effect::Allow => self.actions.with_implied(),
            Effect::Deny => self.actions,
        }
    }

    /// The rule as it stands for `user`, whose name replaces `${user}`; `None` when it says
    /// nothing about them.
    pub fn for_user(&self, user: Option<&UserName>) -> Option<Self> {
        Some(Self { pattern: self.pattern.for_user(user)?, ..self.clone() })
    }
}

/// The rules that apply to one subject.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rights {
    /// In no particular order.
    pub rules: Vec<Rule>,
}

impl Rights {
    /// The right to do anything anywhere.
    pub fn everything() -> Self {
        let rule = Rule {
            grantee: Grantee::Everyone,
            pattern: Pattern::everything(),
            effect: Effect::Allow,
            actions: Actions::ALL,
            expires: None,
        };
        Self { rules: vec![rule] }
    }

    /// Every action allowed on `repository` at `now`.
    pub fn actions_on(&self, repository: &RepositoryName, now: UnixSeconds) -> Actions {
        let all = |effect| {
            self.deciding(repository, now)
                .filter(|rule| rule.effect == effect)
                .fold(Actions::NONE, |all, rule| all.union(rule.decides()))
        };
        all(Effect::Allow).difference(all(Effect::Deny))
    }

    /// The rules that say something about `repository` at `now`.
    pub fn deciding(
        &self,
        repository: &RepositoryName,
        now: UnixSeconds,
    ) -> impl Iterator<Item = &Rule> {
        self.rules.iter().filter(move |rule| rule.holds_at(now) && rule.pattern.matches(repository))
    }

    /// The rules by which every repository may be pulled, none when some may not: who has one gets
    /// the literal `registry:catalog:*` that stock registries demand for an unfiltered catalog.
    pub fn pulling_everything(&self, now: UnixSeconds) -> impl Iterator<Item = &Rule> {
        let decides =
            move |rule: &&Rule| rule.holds_at(now) && rule.decides().contains(Action::Pull);
        let is_denied = self.rules.iter().filter(decides).any(|rule| rule.effect == Effect::Deny);
        self.rules
            .iter()
            .filter(decides)
            .filter(move |rule| !is_denied && rule.pattern.matches_everything())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rule(effect: Effect, text: &str, actions: &str, expires: Option<i64>) -> Rule {
        Rule {
            grantee: Grantee::Everyone,
            pattern: text.parse().unwrap(),
            effect,
            actions: actions.parse().unwrap(),
            expires: expires.map(UnixSeconds::new),
        }
    }

    fn allow(text: &str, actions: &str, expires: Option<i64>) -> Rule {
        rule(Effect::Allow, text, actions, expires)
    }

    fn deny(text: &str, actions: &str, expires: Option<i64>) -> Rule {
        rule(Effect::Deny, text, actions, expires)
    }

    fn actions_on(rules: &[Rule], name: &str, now: i64) -> String {
        let rights = Rights { rules: rules.to_vec() };
        rights.actions_on(&name.parse().unwrap(), UnixSeconds::new(now)).to_string()
    }

    #[test]
    fn allows_add_up_and_expired_rules_are_gone() {
        let rules = [
            allow("team/**", "pull", None),
            allow("team/app", "push", Some(100)),
            allow("other", "*", None),
        ];
        assert_eq!(actions_on(&rules, "team/app", 99), "pull,push");
        assert_eq!(actions_on(&rules, "team/app", 100), "pull");
        assert_eq!(actions_on(&rules, "else", 0), "");
    }

    #[test]
    fn a_deny_wins_over_every_allow_until_it_expires() {
        let rules = [
            deny("secret/**", "push", Some(100)),
            allow("**", "*", None),
            allow("secret/app", "push", None),
            deny("secret/vault", "*", None),
        ];
        assert_eq!(actions_on(&rules, "secret/app", 0), "pull,delete");
        assert_eq!(actions_on(&rules, "secret/app", 100), "pull,push,delete");
        assert_eq!(actions_on(&rules, "secret/vault", 100), "");
        assert_eq!(actions_on(&rules, "app", 0), "pull,push,delete");
        assert_eq!(actions_on(&[deny("**", "*", None)], "app", 0), "");
    }

    #[test]
    fn the_whole_catalog_needs_every_pull_and_no_deny_of_one() {
        let count = |rules: &[Rule]| {
            Rights { rules: rules.to_vec() }.pulling_everything(UnixSeconds::new(50)).count()
        };
        assert_eq!(count(&[allow("team/**", "pull", None)]), 0);
        assert_eq!(count(&[allow("**", "push", None), allow("**", "delete", None)]), 1);
        assert_eq!(count(&[allow("**", "*", None), deny("a", "pull", None)]), 0);
        assert_eq!(count(&[allow("**", "*", None), deny("a", "pull", Some(50))]), 1);
        assert_eq!(count(&[allow("**", "*", None), deny("**", "push", None)]), 1);
    }

    proptest! {
        #[test]
        fn order_never_matters(
            rules in prop::collection::vec(("a|a/b|\\*|\\*\\*", "pull|push|delete|\\*", any::<bool>()), 0..6),
            name in "a|a/b|b",
        ) {
            let read = |(pattern, actions, denies): &(String, String, bool)| {
                let effect = if *denies { Effect::Deny } else { Effect::Allow };
                rule(effect, pattern, actions, None)
            };
            let mut rules: Vec<Rule> = rules.iter().map(read).collect();
            let forwards = actions_on(&rules, &name, 0);
            rules.reverse();
            prop_assert_eq!(forwards, actions_on(&rules, &name, 0));
        }
    }
}
