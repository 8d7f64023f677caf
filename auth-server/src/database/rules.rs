//! The acts that change rules. Each is one transaction, begun as a writer, so that what it read still
//! holds when it writes.

use berth_shared::{
    action::Actions,
    clock::UnixSeconds,
    pattern::Pattern,
    rights::{Effect, Rule},
    subject::Grantee,
};
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};

use super::{
    Error,
    counters::raise,
    refresh_tokens,
    row::read_rule,
    sign_in_addresses,
    transaction::{begin, record},
    writer::Writer,
};
use crate::audit::{Act, Author};

/// The table of rules.
#[derive(Debug, Clone, Copy)]
pub struct RuleTable<'a> {
    pub(super) writer: &'a Writer,
}

impl RuleTable<'_> {
    /// Adds every rule of `rules`. Rules of one effect on the same pattern until the same time
    /// become one. A deny voids the tokens of whom it names. Rules that have expired before `now`
    /// are cleared away.
    ///
    /// # Errors
    /// When the database cannot be written to; nothing is added then.
    pub async fn add(&self, rules: &[Rule], now: UnixSeconds) -> Result<(), Error> {
        let mut writer = self.writer.lock().await;
        let mut transaction = begin(&mut writer).await?;
        let expired = sqlx::query("DELETE FROM grants WHERE expires <= $1").bind(now);
        expired.execute(&mut *transaction).await?;
        add_all(&mut transaction, self.writer.author(), rules, now).await?;
        Ok(transaction.commit().await?)
    }

    /// Takes `actions` out of the rules of this effect that name `grantee` on exactly `pattern`.
    /// Taking an allow away voids the grantee's tokens. Gives back what was taken; nothing happens
    /// when there is none of it.
    ///
    /// # Errors
    /// When the database cannot be written to; nothing is taken then.
    pub async fn remove(
        &self,
        grantee: &Grantee,
        pattern: &Pattern,
        effect: Effect,
        actions: Actions,
    ) -> Result<Actions, Error> {
        let mut writer = self.writer.lock().await;
        let mut transaction = begin(&mut writer).await?;
        let stored = sqlx::query(
            "SELECT id, grantee, pattern, effect, actions, expires FROM grants
             WHERE grantee = $1 AND pattern = $2 AND effect = $3",
        )
        .bind(grantee.to_string())
        .bind(pattern.as_str())
        .bind(effect.word())
        .fetch_all(&mut *transaction)
        .await?;
        let mut taken = Actions::NONE;
        for row in stored {
            let (id, held): (i64, Actions) = (row.try_get("id")?, read_rule(&row)?.actions);
            let lost = held.intersection(actions);
            if !lost.is_empty() {
                taken = taken.union(lost);
                keep(&mut transaction, id, held.difference(lost)).await?;
            }
        }
        if !taken.is_empty() && effect == Effect::Allow {
            raise(&mut transaction, std::slice::from_ref(grantee)).await?;
        }
        if !taken.is_empty() {
            let (grantee, pattern) = (grantee.clone(), pattern.clone());
            let rule = Rule { grantee, pattern, effect, actions: taken, expires: None };
            record(&mut transaction, self.writer.author(), &removed(&rule)).await?;
        }
        transaction.commit().await?;
        Ok(taken)
    }
}

/// The act that adds this rule.
fn added(rule: &Rule) -> Act<'_> {
    match rule.effect {
        Effect::Allow => Act::Grant(rule),
        Effect::Deny => Act::Deny(rule),
    }
}

/// The act that takes this rule back.
pub(super) fn removed(rule: &Rule) -> Act<'_> {
    match rule.effect {
        Effect::Allow => Act::Revoke(rule),
        Effect::Deny => Act::DenyRemove(rule),
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
        record(transaction, author, &added(rule)).await?;
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
    if let Some(row) = same(transaction, rule).await?.first() {
        let actions = read_rule(row)?.actions.union(rule.actions);
        return keep(transaction, row.try_get("id")?, actions).await;
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

/// Takes the actions of `rule` out of the one that has the same end.
pub(super) async fn take(transaction: &mut SqliteConnection, rule: &Rule) -> Result<(), Error> {
    let stored = same(transaction, rule).await?;
    for row in stored {
        let left = read_rule(&row)?.actions.difference(rule.actions);
        keep(transaction, row.try_get("id")?, left).await?;
    }
    Ok(())
}

/// The rows of one grantee, pattern, effect and end.
async fn same(transaction: &mut SqliteConnection, rule: &Rule) -> Result<Vec<SqliteRow>, Error> {
    let rows = sqlx::query(
        "SELECT id, grantee, pattern, effect, actions, expires FROM grants
         WHERE grantee = $1 AND pattern = $2 AND effect = $3 AND expires IS NOT DISTINCT FROM $4",
    )
    .bind(rule.grantee.to_string())
    .bind(rule.pattern.as_str())
    .bind(rule.effect.word())
    .bind(rule.expires);
    Ok(rows.fetch_all(transaction).await?)
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
        super::{
            Database,
            samples::{allow, counter},
        },
        *,
    };

    fn moment(seconds: i64) -> UnixSeconds {
        UnixSeconds::new(seconds)
    }

    #[tokio::test]
    async fn granting_adds_up_and_raises_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let database = Database::open(&dir.path().join("auth.db")).await.unwrap();
        database.rules().add(&[allow("andrew", "a", "pull", None)], moment(100)).await.unwrap();
        database.rules().add(&[allow("andrew", "a", "delete", None)], moment(100)).await.unwrap();
        database
            .rules()
            .add(&[allow("andrew", "a", "push", Some(moment(200)))], moment(100))
            .await
            .unwrap();
        let policy = database.policy().await.unwrap();
        assert_eq!(policy.sequence, 0);
        assert_eq!(policy.rules().len(), 2);
        let rights = policy.rights(&Subject::from_claim("andrew").unwrap());
        let name = "a".parse().unwrap();
        assert_eq!(rights.actions_on(&name, moment(199)), Actions::ALL);
        assert_eq!(rights.actions_on(&name, moment(200)).to_string(), "pull,delete");
        database.rules().add(&[], moment(200)).await.unwrap();
        assert_eq!(database.policy().await.unwrap().rules().len(), 1);
    }

    #[tokio::test]
    async fn revoking_takes_actions_out_and_raises_the_counter() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("auth.db");
        let (server, authctl) =
            (Database::open(&path).await.unwrap(), Database::open(&path).await.unwrap());
        authctl.rules().add(&[allow("andrew", "a", "*", None)], moment(0)).await.unwrap();
        let (andrew, a) = ("andrew".parse().unwrap(), "a".parse().unwrap());
        let taken = authctl
            .rules()
            .remove(&andrew, &a, Effect::Allow, "push".parse().unwrap())
            .await
            .unwrap();
        assert_eq!(taken.to_string(), "push");
        assert_eq!(counter(&server, "andrew").await, 1);
        assert_eq!(server.policy().await.unwrap().rules()[0].actions.to_string(), "pull,delete");
        let again = authctl
            .rules()
            .remove(&andrew, &a, Effect::Allow, "push".parse().unwrap())
            .await
            .unwrap();
        assert!(again.is_empty());
        assert_eq!(counter(&server, "andrew").await, 1);
        authctl.rules().remove(&andrew, &a, Effect::Allow, Actions::ALL).await.unwrap();
        assert_eq!(counter(&server, "andrew").await, 2);
        assert!(server.policy().await.unwrap().rules().is_empty());
    }
}
