//! `authctl grant`, `revoke` and `grants`: who may do what.

use std::str::FromStr;

use auth_server::acl::policy::Policy;
use berth_shared::{
    action::{Action, Actions},
    clock::{Clock, UnixSeconds, rfc3339},
    pattern::Pattern,
    rights::Rule,
    subject::{Grantee, Subject},
};
use clap::Args;
use serde_json::{Value, json};

use crate::{
    report::{Failure, Report, table},
    site::Site,
};

/// `REPO:ACTIONS`, as in `team/**:pull,push`; split at the last colon.
#[derive(Debug, Clone)]
pub(crate) struct GrantText {
    pattern: Pattern,
    actions: Actions,
}

#[derive(Args)]
#[command(after_help = "\
Examples:
  authctl grant andrew team/app:push             push implies pull
  authctl grant lena 'team/**:pull' docs:*       several at once
  authctl grant everyone 'base/*:pull'           every signed-in user
  authctl grant anonymous 'public/**:pull'       whoever is not signed in
  authctl grant ci team/app:push --expires 90d")]
pub(crate) struct GrantArguments {
    /// A user name, `everyone` (whoever is signed in) or `anonymous`.
    #[arg(value_name = "SUBJECT")]
    grantee: Grantee,
    /// Repositories and actions, such as team/app:pull,push or 'team/**:*'.
    #[arg(required = true, value_name = "REPO:ACTIONS")]
    grants: Vec<GrantText>,
    /// How long the grant holds, such as 90d or 12h; for good unless given.
    #[arg(long, value_name = "TIME")]
    expires: Option<humantime::Duration>,
    /// Say what would be done, and do nothing.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Args)]
pub(crate) struct RevokeArguments {
    /// A user name, `everyone` or `anonymous`.
    #[arg(value_name = "SUBJECT")]
    grantee: Grantee,
    /// What is taken back, with the pattern as it was granted; `authctl grants` shows it.
    #[arg(required = true, value_name = "REPO:ACTIONS")]
    grants: Vec<GrantText>,
    /// Say what would be done, and do nothing.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Args)]
pub(crate) struct ListArguments {
    /// Only what this subject holds, through `everyone` too.
    #[arg(value_name = "SUBJECT")]
    grantee: Option<Grantee>,
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
    pub(crate) fn rule(&self, grantee: &Grantee, expires: Option<UnixSeconds>) -> Rule {
        let (pattern, actions) = (self.pattern.clone(), self.actions);
        Rule { grantee: grantee.clone(), pattern, actions, expires }
    }
}

/// The time now, for grants that end.
pub(crate) fn now() -> UnixSeconds {
    Clock::system().now()
}

/// The grantees whose rules `grantee` may use.
pub(crate) fn with_everyone(grantee: &Grantee) -> Vec<Grantee> {
    match grantee {
        Grantee::User(name) => Subject::User(name.clone()).grantees().collect(),
        shared => vec![shared.clone()],
    }
}

pub(crate) async fn grant(arguments: &GrantArguments, site: &Site) -> Result<Report, Failure> {
    let grantee = &arguments.grantee;
    site.must_exist(grantee)?;
    let expires = arguments.expires.map(|life| {
        i64::try_from(life.as_secs())
            .ok()
            .filter(|life| *life > 0)
            .and_then(|life| now().checked_add(life))
            .ok_or_else(|| Failure::Usage("--expires: write a time such as 90d or 12h".to_owned()))
    });
    let expires = expires.transpose()?;
    let rules: Vec<_> = arguments.grants.iter().map(|text| text.rule(grantee, expires)).collect();
    if arguments.dry_run {
        let text = format!("would grant:\n{}", show_rules(&rules, site));
        return Ok(Report::done(text, json!({ "would_grant": json_rules(&rules) })));
    }
    let database = site.database().await?;
    database.grant(&rules, now()).await?;
    let held = database.policy().await?.rights([grantee.clone()]).rules;
    let text = format!("granted; {grantee} now holds:\n{}", show_rules(&held, site));
    Ok(Report::done(text, json!({ "granted": json_rules(&rules), "holds": json_rules(&held) })))
}

pub(crate) async fn revoke(arguments: &RevokeArguments, site: &Site) -> Result<Report, Failure> {
    let grantee = &arguments.grantee;
    let database = site.database().await?;
    let mut lines = Vec::new();
    let (mut revoked, mut still) = (Vec::new(), Vec::new());
    for text in &arguments.grants {
        let (pattern, actions) = (&text.pattern, text.actions);
        let before = database.policy().await?;
        let taken = if arguments.dry_run {
            would_take(&before, grantee, text)
        } else {
            database.revoke(grantee, pattern, actions).await?
        };
        if taken.is_empty() {
            lines.push(format!("there is no grant {grantee} {pattern}:{actions}"));
        } else {
            let verb = if arguments.dry_run { "would revoke" } else { "revoked" };
            lines.push(format!("{verb} {grantee} {pattern}:{taken}"));
            revoked.push(text.rule(grantee, None));
        }
        let after = database.policy().await?.rights(with_everyone(grantee)).rules;
        let others = after.into_iter().filter(|rule| {
            let is_this = rule.grantee == *grantee && rule.pattern == *pattern;
            !(arguments.dry_run && is_this) && still_allows(rule, text)
        });
        for rule in others {
            let kept = rule.actions.with_implied().intersection(actions);
            lines.push(format!("{grantee} still holds {kept} through the grant {}", write(&rule)));
            still.push(rule);
        }
    }
    let is_no = revoked.len() < arguments.grants.len() || !still.is_empty();
    if revoked.len() < arguments.grants.len() {
        let held = database.policy().await?.rights([grantee.clone()]).rules;
        lines.push(if held.is_empty() {
            format!("{grantee} holds no grants")
        } else {
            format!("{grantee} holds:\n{}", show_rules(&held, site))
        });
    }
    let json = json!({ "revoked": json_rules(&revoked), "still_held": json_rules(&still) });
    Ok(Report { text: lines.join("\n"), json, is_no })
}

pub(crate) async fn list(arguments: &ListArguments, site: &Site) -> Result<Report, Failure> {
    let policy = site.database().await?.policy().await?;
    let rules: Vec<Rule> = match &arguments.grantee {
        Some(grantee) => policy.rights(with_everyone(grantee)).rules,
        None => policy.rules().into_iter().cloned().collect(),
    };
    let text = if rules.is_empty() {
        "there are no grants; to give one: authctl grant NAME 'team/**:pull,push'".to_owned()
    } else {
        show_rules(&rules, site)
    };
    Ok(Report::done(text, json_rules(&rules)))
}

/// What `revoke` would take.
fn would_take(policy: &Policy, grantee: &Grantee, text: &GrantText) -> Actions {
    let rules = policy.rights([grantee.clone()]).rules;
    rules
        .iter()
        .filter(|rule| rule.pattern == text.pattern)
        .fold(Actions::NONE, |taken, rule| taken.union(rule.actions.intersection(text.actions)))
}

/// Whether `rule` allows any of the actions on any repository within the pattern.
fn still_allows(rule: &Rule, text: &GrantText) -> bool {
    let kept = rule.actions.with_implied().intersection(text.actions);
    !kept.is_empty() && rule.holds_at(now()) && overlap(&rule.pattern, &text.pattern)
}

/// Whether some repository is within both patterns.
fn overlap(a: &Pattern, b: &Pattern) -> bool {
    fn segments(a: &[&str], b: &[&str]) -> bool {
        match (a.split_first(), b.split_first()) {
            (None, None) => true,
            (Some((&"**", rest)), _) if segments(rest, b) => true,
            (_, Some((&"**", rest))) if segments(a, rest) => true,
            (Some((&"**", _)), Some((_, rest))) => segments(a, rest),
            (Some((_, rest)), Some((&"**", _))) => segments(rest, b),
            (Some((x, a)), Some((y, b))) => (x == y || *x == "*" || *y == "*") && segments(a, b),
            _ => false,
        }
    }
    let a: Vec<_> = a.as_str().split('/').collect();
    let b: Vec<_> = b.as_str().split('/').collect();
    segments(&a, &b)
}

/// The grant as one would type it, with what it implies.
pub(crate) fn write(rule: &Rule) -> String {
    let mut text = format!("{} {}:{}", rule.grantee, rule.pattern, rule.actions);
    if rule.actions.contains(Action::Push) && !rule.actions.contains(Action::Pull) {
        text.push_str(" (push implies pull)");
    }
    if let Some(expires) = rule.expires {
        text.push_str(&format!(" until {}", rfc3339(expires)));
    }
    text
}

/// Rules as a table.
pub(crate) fn show_rules(rules: &[Rule], site: &Site) -> String {
    let users = site.users().users;
    let remark = |rule: &Rule| match &rule.grantee {
        _ if !rule.holds_at(now()) => "expired",
        Grantee::User(name) if !users.contains_key(name) => "no such user",
        _ => "",
    };
    let rows: Vec<_> = rules
        .iter()
        .map(|rule| {
            let until = rule.expires.map_or_else(|| "never".to_owned(), rfc3339);
            let remark = remark(rule).to_owned();
            [
                rule.grantee.to_string(),
                rule.pattern.to_string(),
                rule.actions.to_string(),
                until,
                remark,
            ]
        })
        .collect();
    table(["SUBJECT", "REPOSITORIES", "ACTIONS", "EXPIRES", ""], &rows)
}

/// Rules for programs.
pub(crate) fn json_rules(rules: &[Rule]) -> Value {
    let one = |rule: &Rule| {
        json!({
            "subject": rule.grantee,
            "pattern": rule.pattern,
            "actions": rule.actions,
            "expires": rule.expires.map(rfc3339),
        })
    };
    rules.iter().map(one).collect()
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

    #[test]
    fn patterns_overlap_when_some_repository_is_in_both() {
        for (a, b, expected) in [
            ("a", "a", true),
            ("a", "b", false),
            ("a/*", "a/b", true),
            ("a/*", "a/b/c", false),
            ("a/**", "a/b/c", true),
            ("a/**", "a", true),
            ("**", "x/y", true),
            ("*/b", "a/*", true),
            ("**/b", "a/**", true),
            ("a/**/z", "a/b", false),
            ("**/x", "**/y", false),
        ] {
            let (a, b): (Pattern, Pattern) = (a.parse().unwrap(), b.parse().unwrap());
            assert_eq!(overlap(&a, &b), expected, "{a} {b}");
            assert_eq!(overlap(&b, &a), expected, "{b} {a}");
        }
    }
}
