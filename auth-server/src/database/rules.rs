//! The acts that change rules. Each is one transaction, begun as a writer, so that what it read still
//! holds when it writes.

use berth_shared::{
    action::Actions,
    clock::UnixSeconds,
    database::{Statements, row},
    pattern::Pattern,
    rights::{Effect, Rule},
    subject::Grantee,
};

use super::{
    Database, Error, counters::raise, refresh_tokens, row::Grant, sign_in_addresses,
    transaction::Transaction,
};
use crate::audit::Act;

/// A rule by its place in the table.
struct Stored {
    id: i64,
    grant: Grant,
}

row!(Stored { id }, grant);

impl Database {
    /// Adds every rule of `rules`. Rules of one effect on the same pattern until the same time
    /// become one. A deny voids the tokens of whom it names. Rules that have expired before `now`
    /// are cleared away.
    ///
    /// # Errors
    /// When the database cannot be written to; nothing is added then.
    pub async fn add_rules(&self, rules: &[Rule], now: UnixSeconds) -> Result<(), Error> {
        let added = self.act(rules, move |tx, &rules| {
            Box::pin(async move {
                tx.run("DELETE FROM grants WHERE expires <= $1", now).await?;
                add_all(tx, rules, now).await
            })
        });
        added.await
    }

    /// Takes `actions` out of the rules of this effect that name `grantee` on exactly `pattern`.
    /// Taking an allow away voids the grantee's tokens. Gives back what was taken; nothing happens
    /// when there is none of it.
    ///
    /// # Errors
    /// When the database cannot be written to; nothing is taken then.
    pub async fn take_actions(
        &self,
        grantee: &Grantee,
        pattern: &Pattern,
        effect: Effect,
        actions: Actions,
    ) -> Result<Actions, Error> {
        let (grantee, pattern) = (grantee.clone(), pattern.clone());
        let rule = Rule { grantee, pattern, effect, actions, expires: None };
        let taken = self.act(rule, |tx, rule| {
            Box::pin(async move {
                let taken = take(tx, rule, |_| true).await?;
                if !taken.is_empty() {
                    let rule = Rule { actions: taken, ..rule.clone() };
                    tx.record(&Act::RuleRemove(&rule)).await?;
                }
                Ok(taken)
            })
        });
        taken.await
    }
}

/// Adds every rule, with its row in the audit.
pub(super) async fn add_all(
    transaction: &mut Transaction<'_>,
    rules: &[Rule],
    now: UnixSeconds,
) -> Result<(), Error> {
    for rule in rules {
        add(transaction, rule, now).await?;
        transaction.record(&Act::RuleAdd(rule)).await?;
    }
    Ok(())
}

async fn add(
    transaction: &mut Transaction<'_>,
    rule: &Rule,
    now: UnixSeconds,
) -> Result<(), Error> {
    if rule.effect == Effect::Deny {
        raise(transaction, std::slice::from_ref(&rule.grantee)).await?;
    }
    let mut stored = alike(transaction, rule).await?.into_iter();
    if let Some((id, held)) = stored.find(|(_, held)| held.expires == rule.expires) {
        return keep(transaction, id, held.actions.union(rule.actions)).await;
    }
    let insert = "INSERT INTO grants (grantee, pattern, effect, actions, created, expires)
         VALUES ($1, $2, $3, $4, $5, $6)";
    let Rule { grantee, pattern, effect, actions, expires } = rule;
    let values = (grantee, pattern, effect, actions, now, expires);
    transaction.run(insert, values).await.map(drop)
}

/// Takes the actions of `rule` out of those of its grantee, pattern and effect that are meant. Taking
/// an allow away voids the grantee's tokens. Gives back what was taken.
pub(super) async fn take(
    transaction: &mut Transaction<'_>,
    rule: &Rule,
    is_meant: impl Fn(&Rule) -> bool,
) -> Result<Actions, Error> {
    let mut taken = Actions::NONE;
    for (id, held) in alike(transaction, rule).await? {
        let lost = held.actions.intersection(rule.actions);
        if is_meant(&held) && !lost.is_empty() {
            taken = taken.union(lost);
            keep(transaction, id, held.actions.difference(lost)).await?;
        }
    }
    if !taken.is_empty() && rule.effect == Effect::Allow {
        raise(transaction, std::slice::from_ref(&rule.grantee)).await?;
    }
    Ok(taken)
}

/// What is stored of one grantee, pattern and effect, by its ids.
async fn alike(transaction: &mut Transaction<'_>, rule: &Rule) -> Result<Vec<(i64, Rule)>, Error> {
    let statement = "SELECT id, grantee, pattern, effect, actions, expires FROM grants
         WHERE grantee = $1 AND pattern = $2 AND effect = $3";
    let values = (&rule.grantee, &rule.pattern, rule.effect);
    let stored: Vec<Stored> = transaction.all(statement, values).await?;
    Ok(stored.into_iter().map(|Stored { id, grant }| (id, grant.0)).collect())
}

/// Takes every rule and group of `grantee` away and voids its tokens, refresh tokens too. Gives back
/// how many rules there were.
pub(super) async fn forget(
    transaction: &mut Transaction<'_>,
    grantee: &Grantee,
) -> Result<u64, Error> {
    let removed = transaction.run("DELETE FROM grants WHERE grantee = $1", grantee).await?;
    transaction.run("DELETE FROM group_members WHERE member = $1", grantee).await?;
    refresh_tokens::forget(transaction, grantee).await?;
    if let Grantee::User(user) = grantee {
        sign_in_addresses::forget(transaction, user).await?;
    }
    raise(transaction, std::slice::from_ref(grantee)).await?;
    Ok(removed)
}

/// Leaves the grant `id` with `actions`, or without a row when none are left.
async fn keep(transaction: &mut Transaction<'_>, id: i64, actions: Actions) -> Result<(), Error> {
    let kept = if actions.is_empty() {
        transaction.run("DELETE FROM grants WHERE id = $1", id).await
    } else {
        transaction.run("UPDATE grants SET actions = $1 WHERE id = $2", (actions, id)).await
    };
    kept.map(drop)
}

#[cfg(test)]
mod tests {
    use berth_shared::subject::Subject;

    use super::{
        super::samples::{allow, counter},
        *,
    };

    fn moment(seconds: i64) -> UnixSeconds {
        UnixSeconds::new(seconds)
    }

    #[tokio::test]
    async fn granting_adds_up_and_raises_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let database = Database::open(&dir.path().join("auth.db")).await.unwrap();
        database.add_rules(&[allow("andrew", "a", "pull", None)], moment(100)).await.unwrap();
        database.add_rules(&[allow("andrew", "a", "delete", None)], moment(100)).await.unwrap();
        database
            .add_rules(&[allow("andrew", "a", "push", Some(moment(200)))], moment(100))
            .await
            .unwrap();
        let policy = database.policy().await.unwrap();
        assert_eq!(policy.sequence, 0);
        assert_eq!(policy.rules().len(), 2);
        let rights = policy.rights(&Subject::from_claim("andrew").unwrap());
        let name = "a".parse().unwrap();
        assert_eq!(rights.actions_on(&name, moment(199)), Actions::ALL);
        assert_eq!(rights.actions_on(&name, moment(200)).to_string(), "pull,delete");
        database.add_rules(&[], moment(200)).await.unwrap();
        assert_eq!(database.policy().await.unwrap().rules().len(), 1);
    }

    #[tokio::test]
    async fn revoking_takes_actions_out_and_raises_the_counter() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("auth.db");
        let (server, authctl) =
            (Database::open(&path).await.unwrap(), Database::open(&path).await.unwrap());
        authctl.add_rules(&[allow("andrew", "a", "*", None)], moment(0)).await.unwrap();
        let (andrew, a) = ("andrew".parse().unwrap(), "a".parse().unwrap());
        let taken = authctl
            .take_actions(&andrew, &a, Effect::Allow, "push".parse().unwrap())
            .await
            .unwrap();
        assert_eq!(taken.to_string(), "push");
        assert_eq!(counter(&server, "andrew").await, 1);
        assert_eq!(server.policy().await.unwrap().rules()[0].actions.to_string(), "pull,delete");
        let again = authctl
            .take_actions(&andrew, &a, Effect::Allow, "push".parse().unwrap())
            .await
            .unwrap();
        assert!(again.is_empty());
        assert_eq!(counter(&server, "andrew").await, 1);
        authctl.take_actions(&andrew, &a, Effect::Allow, Actions::ALL).await.unwrap();
        assert_eq!(counter(&server, "andrew").await, 2);
        assert!(server.policy().await.unwrap().rules().is_empty());
    }
}
