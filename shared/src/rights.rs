//! Rules and the one function that decides by them: allows add up, order never matters.

use serde::{Deserialize, Serialize};

use crate::{
    action::Actions, clock::UnixSeconds, name::RepositoryName, pattern::Pattern, subject::Grantee,
};

/// One grant: these actions, on the repositories within this pattern, until it expires.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Whom the rule names.
    pub grantee: Grantee,
    /// Which repositories it covers.
    pub pattern: Pattern,
    /// What it allows, as it was granted (`push` without its implied `pull`).
    pub actions: Actions,
    /// When it stops to hold; never when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<UnixSeconds>,
}

impl Rule {
    /// Whether the rule still holds at `now`.
    #[must_use]
    pub fn holds_at(&self, now: UnixSeconds) -> bool {
        self.expires.is_none_or(|expires| now < expires)
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
    #[must_use]
    pub fn everything() -> Self {
        let rule = Rule {
            grantee: Grantee::Everyone,
            pattern: Pattern::everything(),
            actions: Actions::ALL,
            expires: None,
        };
        Self { rules: vec![rule] }
    }

    /// Every action allowed on `repository` at `now`.
    #[must_use]
    pub fn actions_on(&self, repository: &RepositoryName, now: UnixSeconds) -> Actions {
        self.deciding(repository, now)
            .fold(Actions::NONE, |held, rule| held.union(rule.actions.with_implied()))
    }

    /// The rules that say something about `repository` at `now`.
    pub fn deciding(
        &self,
        repository: &RepositoryName,
        now: UnixSeconds,
    ) -> impl Iterator<Item = &Rule> {
        self.rules.iter().filter(move |rule| rule.holds_at(now) && rule.pattern.matches(repository))
    }

    /// Whether every repository may be pulled: who may, also gets the literal
    /// `registry:catalog:*` that stock registries demand for an unfiltered catalog.
    #[must_use]
    pub fn pulls_everything(&self, now: UnixSeconds) -> bool {
        self.rules.iter().any(|rule| {
            rule.holds_at(now)
                && rule.pattern.matches_everything()
                && rule.actions.with_implied().contains(crate::action::Action::Pull)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str, actions: &str, expires: Option<UnixSeconds>) -> Rule {
        Rule {
            grantee: Grantee::Everyone,
            pattern: text.parse().unwrap(),
            actions: actions.parse().unwrap(),
            expires,
        }
    }

    #[test]
    fn allows_add_up_and_expired_rules_are_gone() {
        let rights = Rights {
            rules: vec![
                rule("team/**", "pull", None),
                rule("team/app", "push", Some(100)),
                rule("other", "*", None),
            ],
        };
        let app: RepositoryName = "team/app".parse().unwrap();
        assert_eq!(rights.actions_on(&app, 99).to_string(), "pull,push");
        assert_eq!(rights.actions_on(&app, 100).to_string(), "pull");
        let none: RepositoryName = "else".parse().unwrap();
        assert!(rights.actions_on(&none, 0).is_empty());
        assert!(!rights.pulls_everything(0));
        assert!(Rights { rules: vec![rule("**", "push", None)] }.pulls_everything(0));
    }
}
