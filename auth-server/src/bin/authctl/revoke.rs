//! `authctl revoke` and `deny --remove`: taking rules back.

use auth_server::acl::{policy::Policy, store::Store};
use berth_shared::{
    action::Actions,
    pattern::Pattern,
    rights::{Effect, Rule},
    subject::Grantee,
};
use clap::Args;
use serde_json::json;

use crate::{
    explain::rules_of,
    grant_text::{GrantText, json_rules, now, show_rules, write},
    report::{Failure, Report},
    site::Site,
};

#[derive(Args)]
pub(crate) struct RevokeArguments {
    /// A user name, `robot.NAME`, `group:NAME`, `everyone` or `anonymous`.
    #[arg(value_name = "SUBJECT")]
    grantee: Grantee,
    /// What is taken back, with the pattern as it was granted; `authctl grants` shows it.
    #[arg(required = true, value_name = "REPO:ACTIONS")]
    grants: Vec<GrantText>,
    /// Say what would be done, and do nothing.
    #[arg(long)]
    dry_run: bool,
}

/// What came of taking rules back.
#[derive(Default)]
struct Taken {
    lines: Vec<String>,
    rules: Vec<Rule>,
}

pub(crate) async fn run(arguments: &RevokeArguments, site: &Site) -> Result<Report, Failure> {
    let RevokeArguments { grantee, grants, dry_run } = arguments;
    let database = site.database().await?;
    let mut taken = Taken::default();
    let mut still = Vec::new();
    for text in grants {
        take(&database, grantee, text, Effect::Allow, *dry_run, &mut taken).await?;
        for rule in still_allowed(&*database.policy().await?, grantee, text, *dry_run) {
            let kept = rule.decides().intersection(text.actions);
            let line = format!("{grantee} still holds {kept} through the grant {}", write(&rule));
            taken.lines.push(line);
            still.push(rule);
        }
    }
    let missing = taken.rules.len() < grants.len();
    if missing {
        taken.lines.push(what_is_held(&database, grantee, site).await?);
    }
    let json = json!({ "revoked": json_rules(&taken.rules), "still_held": json_rules(&still) });
    Ok(Report { text: taken.lines.join("\n"), json, is_no: missing || !still.is_empty() })
}

/// `authctl deny --remove`.
pub(crate) async fn remove_denies(
    grantee: &Grantee,
    denies: &[GrantText],
    dry_run: bool,
    site: &Site,
) -> Result<Report, Failure> {
    let database = site.database().await?;
    let mut taken = Taken::default();
    for text in denies {
        take(&database, grantee, text, Effect::Deny, dry_run, &mut taken).await?;
    }
    let is_no = taken.rules.len() < denies.len();
    if is_no {
        taken.lines.push(what_is_held(&database, grantee, site).await?);
    }
    let json = json!({ "removed": json_rules(&taken.rules) });
    Ok(Report { text: taken.lines.join("\n"), json, is_no })
}

async fn take(
    database: &Store,
    grantee: &Grantee,
    text: &GrantText,
    effect: Effect,
    dry_run: bool,
    taken: &mut Taken,
) -> Result<(), Failure> {
    let (noun, did, would) = match effect {
        Effect::Allow => ("grant", "revoked", "would revoke"),
        Effect::Deny => ("deny", "removed the deny", "would remove the deny"),
    };
    let GrantText { pattern, actions } = text;
    let lost = if dry_run {
        would_take(&*database.policy().await?, grantee, text, effect)
    } else {
        database.rules().remove(grantee, pattern, effect, *actions).await?
    };
    if lost.is_empty() {
        taken.lines.push(format!("there is no {noun} {grantee} {pattern}:{actions}"));
    } else {
        let verb = if dry_run { would } else { did };
        taken.lines.push(format!("{verb} {grantee} {pattern}:{lost}"));
        taken.rules.push(text.rule(grantee, effect, None));
    }
    Ok(())
}

async fn what_is_held(database: &Store, grantee: &Grantee, site: &Site) -> Result<String, Failure> {
    let policy = database.policy().await?;
    let held = policy.rules_naming(grantee);
    Ok(if held.is_empty() {
        format!("no rule names {grantee}")
    } else {
        format!("the rules for {grantee}:\n{}", show_rules(held, site))
    })
}

/// What would be taken.
fn would_take(policy: &Policy, grantee: &Grantee, text: &GrantText, effect: Effect) -> Actions {
    let rules = policy.rules_naming(grantee).iter();
    rules
        .filter(|rule| rule.pattern == text.pattern && rule.effect == effect)
        .fold(Actions::NONE, |taken, rule| taken.union(rule.actions.intersection(text.actions)))
}

/// The rules that still allow `grantee` something of `text`: those on another pattern, or of
/// another grantee that it is. A deny on the very same pattern leaves nothing to say.
fn still_allowed(policy: &Policy, grantee: &Grantee, text: &GrantText, dry_run: bool) -> Vec<Rule> {
    let rules = rules_of(policy, grantee);
    let denied = rules
        .iter()
        .filter(|rule| rule.effect == Effect::Deny && rule.holds_at(now()))
        .filter(|rule| rule.pattern == text.pattern || rule.pattern.matches_everything())
        .fold(Actions::NONE, |all, rule| all.union(rule.decides()));
    let wanted = text.actions.difference(denied);
    let is_taken =
        |rule: &Rule| dry_run && rule.grantee == *grantee && rule.pattern == text.pattern;
    rules
        .into_iter()
        .filter(|rule| rule.effect == Effect::Allow && rule.holds_at(now()) && !is_taken(rule))
        .filter(|rule| !rule.decides().intersection(wanted).is_empty())
        .filter(|rule| overlap(&rule.pattern, &text.pattern))
        .collect()
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

#[cfg(test)]
mod tests {
    use super::*;

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
