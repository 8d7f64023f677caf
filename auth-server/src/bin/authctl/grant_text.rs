//! `REPO:ACTIONS`, and how rules are shown.

use std::str::FromStr;

use auth_server::admin::Admin;
use berth_shared::{
    action::{Action, Actions},
    clock::{Clock, UnixSeconds, rfc3339},
    pattern::Pattern,
    rights::{Effect, Rule},
    subject::{Grantee, RobotName},
};
use serde_json::{Value, json};

use crate::report::table;

/// `REPO:ACTIONS`, as in `team/**:pull,push`; split at the last colon.
#[derive(Debug, Clone)]
pub(crate) struct GrantText {
    pub(crate) pattern: Pattern,
    pub(crate) actions: Actions,
}

impl FromStr for GrantText {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (pattern, actions) = text.rsplit_once(':').ok_or_else(|| {
            format!("{text:?} names no actions: write REPO:ACTIONS, as in team/app:pull,push")
        })?;
        if pattern.is_empty() {
            return Err(format!("{text:?} names no repository: '**:{actions}' means all of them"));
        }
        let pattern = pattern.parse().map_err(|error| format!("{error}"))?;
        Ok(Self { pattern, actions: actions.parse().map_err(|error| format!("{error}"))? })
    }
}

impl GrantText {
    pub(crate) fn rule(
        &self,
        grantee: &Grantee,
        effect: Effect,
        expires: Option<UnixSeconds>,
    ) -> Rule {
        let (pattern, actions) = (self.pattern.clone(), self.actions);
        Rule { grantee: grantee.clone(), pattern, effect, actions, expires }
    }
}

/// The rules by which `grantee` gets these, or is denied them.
pub(crate) fn rules(
    texts: &[GrantText],
    grantee: &Grantee,
    effect: Effect,
    expires: Option<UnixSeconds>,
) -> Vec<Rule> {
    texts.iter().map(|text| text.rule(grantee, effect, expires)).collect()
}

/// What whoever was just made may do: `held`, or how to give it something.
pub(crate) fn first_rights(name: &RobotName, held: &[Rule], admin: &Admin) -> String {
    if held.is_empty() {
        return format!(
            "It may do nothing yet; to change that: authctl grant {name} 'team/**:pull'"
        );
    }
    show_rules(held, admin)
}

/// The time now, for grants that end.
pub(crate) fn now() -> UnixSeconds {
    Clock::system().now()
}

/// The rule as one would type it, with what it implies.
pub(crate) fn write(rule: &Rule) -> String {
    let verb = if rule.effect == Effect::Deny { "deny " } else { "" };
    let mut text = format!("{verb}{} {}:{}", rule.grantee, rule.pattern, rule.actions);
    if rule.effect == Effect::Allow
        && rule.actions.contains(Action::Push)
        && !rule.actions.contains(Action::Pull)
    {
        text.push_str(" (push implies pull)");
    }
    if let Some(expires) = rule.expires {
        text.push_str(&format!(" until {}", rfc3339(expires)));
    }
    text
}

/// Rules as a table.
pub(crate) fn show_rules(rules: &[Rule], admin: &Admin) -> String {
    let users = admin.users().users;
    let remark = |rule: &Rule| match &rule.grantee {
        _ if !rule.holds_at(now()) => "expired",
        Grantee::User(name) if !users.contains_key(name) => "no such user",
        _ => "",
    };
    let object = |rule: &Rule| {
        let mut object = json_rule(rule);
        object["actions"] = rule.actions.to_string().into();
        object["remark"] = remark(rule).into();
        object
    };
    table(
        ["SUBJECT", "RULE", "REPOSITORIES", "ACTIONS", "EXPIRES", ""],
        ["subject", "effect", "pattern", "actions", "expires", "remark"],
        "never",
        &rules.iter().map(object).collect::<Vec<_>>(),
    )
}

/// Rules for programs.
pub(crate) fn json_rules(rules: &[Rule]) -> Value {
    rules.iter().map(json_rule).collect()
}

fn json_rule(rule: &Rule) -> Value {
    json!({
        "subject": rule.grantee,
        "effect": rule.effect,
        "pattern": rule.pattern,
        "actions": rule.actions,
        "expires": rule.expires.map(rfc3339),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_are_split_at_the_last_colon_and_hosts_refused() {
        let grant: GrantText = "team/**:pull,push".parse().unwrap();
        assert_eq!(
            (grant.pattern.as_str(), grant.actions.to_string().as_str()),
            ("team/**", "pull,push")
        );
        for (bad, hint) in [
            ("team/app", "names no actions"),
            (":pull", "names no repository"),
            ("reg.lan:5000/team/app:pull", "host"),
            ("Team/app:pull", "lower case"),
            ("team/app:read", "unknown action"),
            ("team/app:", "unknown action"),
        ] {
            let error = bad.parse::<GrantText>().unwrap_err();
            assert!(error.contains(hint), "{bad}: {error}");
        }
    }
}
