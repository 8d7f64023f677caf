//! Who may do what: giving rules, and taking them back.

use berth_shared::{
    action::Actions,
    clock::UnixSeconds,
    pattern::Pattern,
    rights::{Effect, Rule},
    subject::{Grantee, Subject},
};

use super::{Admin, Error, Warning};
use crate::database::policy::Policy;

/// What may not be meant of `rules` for `grantee`.
///
/// # Errors
/// When the database cannot be used.
pub async fn warnings(
    admin: &Admin,
    grantee: &Grantee,
    rules: &[Rule],
) -> Result<Vec<Warning>, Error> {
    let policy = admin.policy().await?;
    let mut warnings = Vec::from_iter(Warning::of_nobody(grantee, admin, &policy));
    let patterns: Vec<_> = rules.iter().map(|rule| &rule.pattern).collect();
    warnings.extend(Warning::of_host(&patterns, admin));
    let is_of_a_user = |rule: &Rule| rule.pattern.to_string().contains("${user}");
    if *grantee == Grantee::Anonymous && rules.iter().any(is_of_a_user) {
        warnings.push(Warning::NameOfAnonymous);
    }
    warnings.extend(denies_over(rules, &holding_for(&policy, grantee), admin.now()));
    Ok(warnings)
}

/// Of each deny in `held` that takes away some of what `rules` give.
fn denies_over<'a>(
    rules: &'a [Rule],
    held: &'a [Rule],
    now: UnixSeconds,
) -> impl Iterator<Item = Warning> + 'a {
    let takes_away = move |deny: &Rule| {
        rules.iter().filter(|rule| rule.effect == Effect::Allow).any(|rule| {
            !rule.decides().intersection(deny.decides()).is_empty()
                && overlap(&rule.pattern, &deny.pattern)
        })
    };
    let denies = held.iter().filter(move |it| it.effect == Effect::Deny && it.holds_at(now));
    denies.filter(move |deny| takes_away(deny)).cloned().map(Warning::Denied)
}

/// Adds rules for `grantee`, grants or denies. Gives back those that name it from then on.
///
/// # Errors
/// When the database cannot be written to; nothing is added then.
pub async fn add(admin: &Admin, grantee: &Grantee, rules: &[Rule]) -> Result<Vec<Rule>, Error> {
    admin.database().await?.add_rules(rules, admin.now()).await?;
    naming(admin, grantee).await
}

/// The rules that name exactly `grantee`.
///
/// # Errors
/// When the database cannot be used.
pub async fn naming(admin: &Admin, grantee: &Grantee) -> Result<Vec<Rule>, Error> {
    Ok(admin.policy().await?.rules_naming(grantee).to_vec())
}

/// Takes `actions` out of the rules of this effect that name `grantee` on exactly `pattern`. Gives
/// back what was taken, or in a dry run what would be.
///
/// # Errors
/// When the database cannot be written to; nothing is taken then.
pub async fn take(
    admin: &Admin,
    grantee: &Grantee,
    pattern: &Pattern,
    effect: Effect,
    actions: Actions,
    dry_run: bool,
) -> Result<Actions, Error> {
    if !dry_run {
        let database = admin.database().await?;
        return Ok(database.take_actions(grantee, pattern, effect, actions).await?);
    }
    let rules = naming(admin, grantee).await?;
    let of_it = rules.iter().filter(|rule| rule.pattern == *pattern && rule.effect == effect);
    Ok(of_it.fold(Actions::NONE, |taken, rule| taken.union(rule.actions.intersection(actions))))
}

/// The rules that still allow `grantee` some of `actions` on `pattern`: those on another pattern, or
/// of another grantee that it is. A deny on the very same pattern leaves nothing to say. In a dry run
/// what would be taken is not among them.
///
/// # Errors
/// When the database cannot be used.
pub async fn still_allowing(
    admin: &Admin,
    grantee: &Grantee,
    pattern: &Pattern,
    actions: Actions,
    dry_run: bool,
) -> Result<Vec<Rule>, Error> {
    let now = admin.now();
    let rules = holding_for(&*admin.policy().await?, grantee);
    let denied = rules
        .iter()
        .filter(|rule| rule.effect == Effect::Deny && rule.holds_at(now))
        .filter(|rule| rule.pattern == *pattern || rule.pattern.matches_everything())
        .fold(Actions::NONE, |all, rule| all.union(rule.decides()));
    let wanted = actions.difference(denied);
    let is_taken = |rule: &Rule| dry_run && rule.grantee == *grantee && rule.pattern == *pattern;
    Ok(rules
        .into_iter()
        .filter(|rule| rule.effect == Effect::Allow && rule.holds_at(now) && !is_taken(rule))
        .filter(|rule| !rule.decides().intersection(wanted).is_empty())
        .filter(|rule| overlap(&rule.pattern, pattern))
        .collect())
}

/// Every rule that holds for `grantee`, as it was written: its own, those of its groups, and those
/// of `everyone` and `anonymous` where it is one of them.
#[must_use]
pub fn holding_for(policy: &Policy, grantee: &Grantee) -> Vec<Rule> {
    let named = |grantees: &[&Grantee]| {
        grantees.iter().flat_map(|one| policy.rules_naming(one)).cloned().collect()
    };
    let (everyone, anonymous) = (&Grantee::Everyone, &Grantee::Anonymous);
    match grantee {
        Grantee::User(name) => policy.rules_for(&Subject::User(name.clone())).cloned().collect(),
        Grantee::Robot(name) => policy.rules_for(&Subject::Robot(name.clone())).cloned().collect(),
        Grantee::Group(_) => named(&[grantee, everyone, anonymous]),
        Grantee::Everyone => named(&[everyone, anonymous]),
        Grantee::Anonymous => named(&[anonymous]),
    }
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
    use berth_shared::clock::Clock;

    use super::{super::Nobody, *};
    use crate::{audit::Author, config::Config};

    #[tokio::test]
    async fn what_is_given_is_held_until_it_is_taken_and_a_dry_run_takes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config {
            data: dir.path().join("auth"),
            htpasswd: dir.path().join("htpasswd"),
            ..Config::default()
        };
        let admin = Admin::new(config, Author::process(Clock::set(UnixSeconds::new(0))));
        let (grantee, pattern): (Grantee, Pattern) =
            ("andrew".parse().unwrap(), "team/**".parse().unwrap());
        let (effect, actions) = (Effect::Allow, Actions::ALL);
        let rule = |grantee: &Grantee, pattern: &str| Rule {
            grantee: grantee.clone(),
            pattern: pattern.parse().unwrap(),
            effect,
            actions,
            expires: None,
        };
        let nobody = Warning::Nobody(Nobody(Grantee::User("andrew".parse().unwrap())));
        let rules = [rule(&grantee, "team/**")];
        assert_eq!(warnings(&admin, &grantee, &rules).await.unwrap(), [nobody]);
        let own = [rule(&Grantee::Anonymous, "${user}/**")];
        let warned = warnings(&admin, &Grantee::Anonymous, &own).await.unwrap();
        assert_eq!(warned, [Warning::NameOfAnonymous]);
        assert_eq!(add(&admin, &grantee, &rules).await.unwrap(), rules);
        let push: Actions = "push".parse().unwrap();
        for dry_run in [true, false] {
            let taken = take(&admin, &grantee, &pattern, effect, push, dry_run).await.unwrap();
            assert_eq!(taken, push, "the dry run took it");
        }
        let left = naming(&admin, &grantee).await.unwrap();
        assert_eq!(left[0].actions, actions.difference(push));
        let still = still_allowing(&admin, &grantee, &pattern, actions, false).await.unwrap();
        assert_eq!(still, left);
        let deny =
            Rule { effect: Effect::Deny, actions: push, ..rule(&Grantee::Everyone, "team/secret") };
        add(&admin, &Grantee::Everyone, std::slice::from_ref(&deny)).await.unwrap();
        for (pattern, is_denied) in [("team/**", true), ("team/open", false)] {
            let warned = warnings(&admin, &grantee, &[rule(&grantee, pattern)]).await.unwrap();
            assert_eq!(warned.contains(&Warning::Denied(deny.clone())), is_denied, "{pattern}");
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
