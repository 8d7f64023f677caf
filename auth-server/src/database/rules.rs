//! The acts that change rules. Each is one transaction, begun as a writer, so that what it read still
//! holds when it writes.

use berth_shared::{
    action::Actions,
    clock::UnixSeconds,
    pattern::Pattern,
    rights::{Effect, Rule},
    subject::Grantee,
};
use sqlx::{Row, SqliteConnection};

use super::{
    Database, Error,
    counters::raise,
    refresh_tokens,
    row::read_rule,
    sign_in_addresses,
    transaction::{begin, record},
};
use crate::audit::{Act, Author};

impl Database {
    /// Adds every rule of `rules`. Rules of one effect on the same pattern until the same time
    /// become one. A deny voids the tokens of whom it names. Rules that have expired before `now`
    /// are cleared away.
    ///
    /// # Errors
    /// When the database cannot be written to; nothing is added then.
    pub async fn add_rules(&self, rules: &[Rule], now: UnixSeconds) -> Result<(), Error> {
        let mut writer = self.writer.lock().await;
        let mut transaction = begin(&mut writer).await?;
        let expired = sqlx::query("DELETE FROM grants WHERE expires <= $1").bind(now);
        expired.execute(&mut *transaction).await?;
        add_all(&mut transaction, &self.author, rules, now).await?;
        Ok(transaction.commit().await?)
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
        let mut writer = self.writer.lock().await;
        let mut transaction = begin(&mut writer).await?;
        let (grantee, pattern) = (grantee.clone(), pattern.clone());
        let mut rule = Rule { grantee, pattern, effect, actions, expires: None };
        rule.actions = take(&mut transaction, &rule, |_| true).await?;
        if !rule.actions.is_empty() {
            record(&mut transaction, &self.author, &Act::RuleRemove(&rule)).await?;
        }
        transaction.commit().await?;
        Ok(rule.actions)
    }
}

/// Adds every rule, with its row in the audit.
pub(super) async fn add_all(
    transaction: &mut SqliteConnection,
    author: &Author,
    rules: &[Rule],
    now: UnixSeconds,
) -> Result<(), Error> {
    for rule in rules {
        add(transaction, rule, now).await?;
        record(transaction, author, &Act::RuleAdd(rule)).await?;
    }
    Ok(())
}

async fn add(
    transaction: &mut SqliteConnection,
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
    sqlx::query(
        "INSERT INTO grants (grantee, pattern, effect, actions, created, expires)
         VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(rule.grantee.to_string())
    .bind(rule.pattern.as_str())
    .bind(rule.effect.word())
    .bind(rule.actions.to_string())
    .bind(now)
    .bind(rule.expires)
    .execute(transaction)
    .await?;
    Ok(())
}

/// Takes the actions of `rule` out of those of its grantee, pattern and effect that are meant. Taking
/// an allow away voids the grantee's tokens. Gives back what was taken.
pub(super) async fn take(
    transaction: &mut SqliteConnection,
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
async fn alike(transaction: &mut SqliteConnection, rule: &Rule) -> Result<Vec<(i64, Rule)>, Error> {
    let rows = sqlx::query(
        "SELECT id, grantee, pattern, effect, actions, expires FROM grants
         WHERE grantee = $1 AND pattern = $2 AND effect = $3",
    )
    .bind(rule.grantee.to_string())
    .bind(rule.pattern.as_str())
    .bind(rule.effect.word())
    .fetch_all(transaction)
    .await?;
    rows.iter().map(|row| Ok((row.try_get("id")?, read_rule(row)?))).collect()
}

/// Takes every rule and group of `grantee` away and voids its tokens, refresh tokens too. Gives back
/// how many rules there were.
pub(super) async fn forget(
    transaction: &mut SqliteConnection,
    grantee: &Grantee,
) -> Result<u64, Error> {
    let name = grantee.to_string();
    let rules = sqlx::query("DELETE FROM grants WHERE grantee = $1").bind(&name);
    let removed = rules.execute(&mut *transaction).await?.rows_affected();
    let groups = sqlx::query("DELETE FROM group_members WHERE member = $1").bind(&name);
    groups.execute(&mut *transaction).await?;
    refresh_tokens::forget(transaction, grantee).await?;
    if let Grantee::User(user) = grantee {
        sign_in_addresses::forget(transaction, user).await?;
    }
    raise(transaction, std::slice::from_ref(grantee)).await?;
    Ok(removed)
}

/// Leaves the grant `id` with `actions`, or without a row when none are left.
async fn keep(transaction: &mut SqliteConnection, id: i64, actions: Actions) -> Result<(), Error> {
    let query = if actions.is_empty() {
        sqlx::query("DELETE FROM grants WHERE id = $1").bind(id)
    } else {
        let update = sqlx::query("UPDATE grants SET actions = $1 WHERE id = $2");
        update.bind(actions.to_string()).bind(id)
    };
    query.execute(transaction).await?;
    Ok(())
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
