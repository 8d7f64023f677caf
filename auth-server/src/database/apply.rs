//! Making the database say what a policy file says, in one transaction.

use std::collections::{BTreeMap, BTreeSet};

use berth_shared::{
    action::Actions,
    clock::UnixSeconds,
    database::Statements,
    rights::Rule,
    subject::{GroupName, Subject},
};

use super::{Database, Error, groups, policy::Policy, rules, transaction::Transaction};
use crate::audit::Act;

/// The rules and groups that there are to be.
#[derive(Debug, Default, Clone)]
pub struct Desired {
    /// Rules, in any order.
    pub rules: Vec<Rule>,
    /// Who is in each group.
    pub groups: BTreeMap<GroupName, BTreeSet<Subject>>,
}

/// What makes the database say what was desired.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Rules that are not there, or hold fewer actions there.
    pub added: Vec<Rule>,
    /// Rules, or actions of rules, that are not desired.
    pub removed: Vec<Rule>,
    /// Who is to be in a group and is not.
    pub joined: Vec<(GroupName, Subject)>,
    /// Who is in a group and is not to be.
    pub left: Vec<(GroupName, Subject)>,
}

impl Changes {
    /// Whether everything is as desired.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Rules that say no actions, each with those of all that are like it.
type Merged = BTreeMap<Rule, Actions>;

impl Database {
    /// Adds what `desired` has and the database has not; with `prune` takes away what only the
    /// database has. Gives back what was changed, or with `dry_run` what would be.
    ///
    /// # Errors
    /// When the database cannot be written to; nothing is changed then.
    pub async fn apply(
        &self,
        desired: &Desired,
        prune: bool,
        dry_run: bool,
        now: UnixSeconds,
    ) -> Result<Changes, Error> {
        let applied = self.act(desired, move |tx, &desired| {
            Box::pin(async move {
                let there = Policy::within(&mut tx.connection()).await?;
                let mut changes = difference(desired, &there, now);
                if !prune {
                    changes.removed.clear();
                    changes.left.clear();
                }
                if !dry_run {
                    make(tx, &changes, now).await?;
                }
                Ok(changes)
            })
        });
        applied.await
    }
}

/// Makes the changes, each with its row in the audit.
async fn make(
    transaction: &mut Transaction<'_>,
    changes: &Changes,
    now: UnixSeconds,
) -> Result<(), Error> {
    rules::add_all(transaction, &changes.added, now).await?;
    for (group, member) in &changes.joined {
        groups::change(transaction, group, member, true).await?;
    }
    for rule in &changes.removed {
        rules::take(transaction, rule, |held| held.expires == rule.expires).await?;
        transaction.record(&Act::RuleRemove(rule)).await?;
    }
    for (group, member) in &changes.left {
        groups::change(transaction, group, member, false).await?;
    }
    Ok(())
}

fn difference(desired: &Desired, there: &Policy, now: UnixSeconds) -> Changes {
    let wanted = merge(desired.rules.iter());
    let held = merge(there.rules().into_iter().filter(|rule| rule.holds_at(now)));
    let pairs = |groups: &BTreeMap<GroupName, BTreeSet<Subject>>| -> BTreeSet<_> {
        let pairs = groups.iter().flat_map(|(group, members)| {
            members.iter().map(move |member| (group.clone(), member.clone()))
        });
        pairs.collect()
    };
    let (wanted_in, are_in) = (pairs(&desired.groups), pairs(&there.groups));
    Changes {
        added: missing(&wanted, &held),
        removed: missing(&held, &wanted),
        joined: wanted_in.difference(&are_in).cloned().collect(),
        left: are_in.difference(&wanted_in).cloned().collect(),
    }
}

fn merge<'a>(rules: impl Iterator<Item = &'a Rule>) -> Merged {
    let mut merged = Merged::new();
    for rule in rules {
        let actions = merged.entry(Rule { actions: Actions::NONE, ..rule.clone() }).or_default();
        *actions = actions.union(rule.actions);
    }
    merged
}

/// What `from` has and `other` has not.
fn missing(from: &Merged, other: &Merged) -> Vec<Rule> {
    let lacking = from.iter().map(|(rule, actions)| {
        let actions = actions.difference(other.get(rule).copied().unwrap_or_default());
        Rule { actions, ..rule.clone() }
    });
    lacking.filter(|rule| !rule.actions.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use berth_shared::rights::Effect;

    use super::{super::samples::allow, *};

    fn moment(seconds: i64) -> UnixSeconds {
        UnixSeconds::new(seconds)
    }

    fn rule(effect: Effect, grantee: &str, pattern: &str, actions: &str) -> Rule {
        Rule { effect, ..allow(grantee, pattern, actions, None) }
    }

    #[tokio::test]
    async fn what_is_applied_is_added_and_the_rest_only_pruned() {
        let dir = tempfile::tempdir().unwrap();
        let database = Database::open(&dir.path().join("auth.db")).await.unwrap();
        let allow = |grantee, pattern, actions| rule(Effect::Allow, grantee, pattern, actions);
        let andrew = Subject::from_claim("andrew").unwrap();
        let devs: GroupName = "devs".parse().unwrap();
        database
            .add_rules(&[allow("andrew", "a", "pull,delete"), allow("bea", "b", "pull")], moment(0))
            .await
            .unwrap();
        database.join_group(&devs, std::slice::from_ref(&andrew)).await.unwrap();
        let desired = Desired {
            rules: vec![allow("andrew", "a", "push,pull"), rule(Effect::Deny, "bea", "b", "push")],
            groups: BTreeMap::from([(
                devs.clone(),
                BTreeSet::from([Subject::from_claim("bea").unwrap()]),
            )]),
        };
        let added = vec![allow("andrew", "a", "push"), rule(Effect::Deny, "bea", "b", "push")];
        let dry = database.apply(&desired, false, true, moment(0)).await.unwrap();
        assert_eq!((&dry.added, dry.removed.len(), dry.left.len()), (&added, 0, 0));
        assert_eq!(database.apply(&desired, false, false, moment(0)).await.unwrap(), dry);
        assert!(database.apply(&desired, false, false, moment(0)).await.unwrap().is_empty());
        let pruned = database.apply(&desired, true, false, moment(0)).await.unwrap();
        assert_eq!(pruned.removed, [allow("andrew", "a", "delete"), allow("bea", "b", "pull")]);
        assert_eq!(pruned.left, [(devs, andrew.clone())]);
        assert!(database.apply(&desired, true, false, moment(0)).await.unwrap().is_empty());
        let policy = database.policy().await.unwrap();
        assert_eq!(policy.rules().into_iter().cloned().collect::<Vec<_>>(), desired.rules);
        assert!(policy.revocations.least_for(&andrew) > 0);
    }
}
