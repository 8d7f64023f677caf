//! Every act that changes the database. Each is one transaction, begun as a writer, so that what
//! it read still holds when it writes.

use std::collections::BTreeMap;

use berth_shared::{
    action::Actions,
    clock::UnixSeconds,
    pattern::Pattern,
    rights::Rule,
    subject::{Grantee, UserName},
};
use sqlx::{Connection, Row, Sqlite, SqliteConnection, Transaction};

use super::{
    Error,
    policy::{count, read_rule},
    store::Store,
};

impl Store {
    /// Makes every token void that is out, though what issued them was a later state than this
    /// database knows: `least` is a number that the sequence has not gone beyond anywhere.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn void_every_token(&self, least: i64) -> Result<(), Error> {
        let mut writer = self.writer.lock().await;
        let mut transaction = begin(&mut writer).await?;
        sqlx::query("UPDATE sequence SET value = $1 WHERE value < $1")
            .bind(least)
            .execute(&mut *transaction)
            .await?;
        raise(&mut transaction, &[Grantee::Everyone, Grantee::Anonymous]).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Grants every rule of `rules`. Rules on the same pattern until the same time become one.
    /// Grants that have expired before `now` are cleared away.
    ///
    /// # Errors
    /// When the database cannot be written to; nothing is granted then.
    pub async fn grant(&self, rules: &[Rule], now: UnixSeconds) -> Result<(), Error> {
        let mut writer = self.writer.lock().await;
        let mut transaction = begin(&mut writer).await?;
        let expired = sqlx::query("DELETE FROM grants WHERE expires <= $1").bind(now);
        expired.execute(&mut *transaction).await?;
        for rule in rules {
            grant_one(&mut transaction, rule, now).await?;
        }
        Ok(transaction.commit().await?)
    }

    /// Takes `actions` out of the grants of `grantee` on exactly `pattern`, and voids the
    /// grantee's tokens. Gives back what was taken; nothing happens when there is none of it.
    ///
    /// # Errors
    /// When the database cannot be written to; nothing is revoked then.
    pub async fn revoke(
        &self,
        grantee: &Grantee,
        pattern: &Pattern,
        actions: Actions,
    ) -> Result<Actions, Error> {
        let mut writer = self.writer.lock().await;
        let mut transaction = begin(&mut writer).await?;
        let stored = sqlx::query(
            "SELECT id, grantee, pattern, actions, expires FROM grants
             WHERE grantee = $1 AND pattern = $2",
        )
        .bind(grantee.to_string())
        .bind(pattern.as_str())
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
        if !taken.is_empty() {
            raise(&mut transaction, std::slice::from_ref(grantee)).await?;
        }
        transaction.commit().await?;
        Ok(taken)
    }

    /// Takes every grant of a user away, as when the user is removed: whoever gets that name later
    /// must not inherit them. Gives back how many there were.
    ///
    /// # Errors
    /// When the database cannot be written to.
    pub async fn revoke_all(&self, user: &UserName) -> Result<u64, Error> {
        let mut writer = self.writer.lock().await;
        let mut transaction = begin(&mut writer).await?;
        let removed = sqlx::query("DELETE FROM grants WHERE grantee = $1")
            .bind(user.as_str())
            .execute(&mut *transaction)
            .await?
            .rows_affected();
        raise(&mut transaction, &[Grantee::User(user.clone())]).await?;
        transaction.commit().await?;
        Ok(removed)
    }

    /// Compares the users of the htpasswd file with those last seen, and voids the tokens of every
    /// user whose password has changed or who is gone. The fingerprints are those of
    /// [`crate::users::htpasswd`]. Gives back the sequence as it stands then.
    ///
    /// # Errors
    /// When the database cannot be written to; the next call finds the same differences again.
    pub async fn reconcile(&self, users: &BTreeMap<UserName, String>) -> Result<u64, Error> {
        let mut writer = self.writer.lock().await;
        let mut transaction = begin(&mut writer).await?;
        let mut seen = BTreeMap::new();
        let rows = sqlx::query("SELECT name, fingerprint FROM htpasswd_seen");
        for row in rows.fetch_all(&mut *transaction).await? {
            let name: String = row.try_get("name")?;
            let name: UserName = name.parse().map_err(|_| Error::Row(name))?;
            seen.insert(name, row.try_get::<String, _>("fingerprint")?);
        }
        if seen == *users {
            return sequence(&mut transaction).await;
        }
        let differs = |(name, print): &(&UserName, &String)| users.get(*name) != Some(*print);
        let lost: Vec<_> =
            seen.iter().filter(differs).map(|(name, _)| Grantee::User(name.clone())).collect();
        for name in &lost {
            let forget = sqlx::query("DELETE FROM htpasswd_seen WHERE name = $1");
            forget.bind(name.to_string()).execute(&mut *transaction).await?;
        }
        for (name, print) in users.iter().filter(|(name, print)| seen.get(*name) != Some(print)) {
            let remember =
                sqlx::query("INSERT INTO htpasswd_seen (name, fingerprint) VALUES ($1, $2)");
            remember.bind(name.as_str()).bind(print).execute(&mut *transaction).await?;
        }
        raise(&mut transaction, &lost).await?;
        let sequence = sequence(&mut transaction).await?;
        transaction.commit().await?;
        Ok(sequence)
    }
}

async fn begin(connection: &mut SqliteConnection) -> Result<Transaction<'_, Sqlite>, Error> {
    Ok(connection.begin_with("BEGIN IMMEDIATE").await?)
}

async fn grant_one(
    transaction: &mut SqliteConnection,
    rule: &Rule,
    now: UnixSeconds,
) -> Result<(), Error> {
    let same = sqlx::query(
        "SELECT id, grantee, pattern, actions, expires FROM grants
         WHERE grantee = $1 AND pattern = $2 AND expires IS NOT DISTINCT FROM $3",
    )
    .bind(rule.grantee.to_string())
    .bind(rule.pattern.as_str())
    .bind(rule.expires)
    .fetch_optional(&mut *transaction)
    .await?;
    if let Some(row) = same {
        let actions = read_rule(&row)?.actions.union(rule.actions);
        return keep(transaction, row.try_get("id")?, actions).await;
    }
    sqlx::query(
        "INSERT INTO grants (grantee, pattern, actions, created, expires)
         VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(rule.grantee.to_string())
    .bind(rule.pattern.as_str())
    .bind(rule.actions.to_string())
    .bind(now)
    .bind(rule.expires)
    .execute(transaction)
    .await?;
    Ok(())
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

/// Moves the sequence on and makes its new value the counter of each of `grantees`.
async fn raise(transaction: &mut SqliteConnection, grantees: &[Grantee]) -> Result<(), Error> {
    for grantee in grantees {
        let next = sqlx::query("UPDATE sequence SET value = value + 1 RETURNING value");
        let next: i64 = next.fetch_one(&mut *transaction).await?.try_get("value")?;
        sqlx::query(
            "INSERT INTO counters (grantee, counter) VALUES ($1, $2)
             ON CONFLICT (grantee) DO UPDATE SET counter = excluded.counter",
        )
        .bind(grantee.to_string())
        .bind(next)
        .execute(&mut *transaction)
        .await?;
    }
    Ok(())
}

async fn sequence(transaction: &mut SqliteConnection) -> Result<u64, Error> {
    let row = sqlx::query("SELECT value FROM sequence").fetch_one(transaction).await?;
    count(&row, "value")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(grantee: &str, pattern: &str, actions: &str, expires: Option<UnixSeconds>) -> Rule {
        Rule {
            grantee: grantee.parse().unwrap(),
            pattern: pattern.parse().unwrap(),
            actions: actions.parse().unwrap(),
            expires,
        }
    }

    fn users(pairs: &[(&str, &str)]) -> BTreeMap<UserName, String> {
        let user = |(name, print): &(&str, &str)| (name.parse().unwrap(), (*print).to_owned());
        pairs.iter().map(user).collect()
    }

    async fn counter(store: &Store, grantee: &str) -> u64 {
        let policy = store.policy().await.unwrap();
        policy.revocations.counters.get(&grantee.parse().unwrap()).copied().unwrap_or(0)
    }

    #[tokio::test]
    async fn granting_adds_up_and_raises_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("auth.db")).await.unwrap();
        store.grant(&[rule("andrew", "a", "pull", None)], 100).await.unwrap();
        store.grant(&[rule("andrew", "a", "delete", None)], 100).await.unwrap();
        store.grant(&[rule("andrew", "a", "push", Some(200))], 100).await.unwrap();
        let policy = store.policy().await.unwrap();
        assert_eq!(policy.sequence, 0);
        assert_eq!(policy.rules().len(), 2);
        let rights = policy.rights(["andrew".parse().unwrap()]);
        let name = "a".parse().unwrap();
        assert_eq!(rights.actions_on(&name, 199), Actions::ALL);
        assert_eq!(rights.actions_on(&name, 200).to_string(), "pull,delete");
        store.grant(&[], 200).await.unwrap();
        assert_eq!(store.policy().await.unwrap().rules().len(), 1);
    }

    #[tokio::test]
    async fn revoking_takes_actions_out_and_raises_the_counter() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("auth.db");
        let (server, authctl) =
            (Store::open(&path).await.unwrap(), Store::open(&path).await.unwrap());
        authctl.grant(&[rule("andrew", "a", "*", None)], 0).await.unwrap();
        let (andrew, a) = ("andrew".parse().unwrap(), "a".parse().unwrap());
        let taken = authctl.revoke(&andrew, &a, "push".parse().unwrap()).await.unwrap();
        assert_eq!(taken.to_string(), "push");
        assert_eq!(counter(&server, "andrew").await, 1);
        assert_eq!(server.policy().await.unwrap().rules()[0].actions.to_string(), "pull,delete");
        let again = authctl.revoke(&andrew, &a, "push".parse().unwrap()).await.unwrap();
        assert!(again.is_empty());
        assert_eq!(counter(&server, "andrew").await, 1);
        authctl.revoke(&andrew, &a, Actions::ALL).await.unwrap();
        assert_eq!(counter(&server, "andrew").await, 2);
        assert!(server.policy().await.unwrap().rules().is_empty());
    }

    #[tokio::test]
    async fn a_changed_or_removed_user_is_raised_also_when_edited_while_down() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("auth.db");
        let store = Store::open(&path).await.unwrap();
        let first = users(&[("a", "1"), ("b", "1"), ("c", "1")]);
        assert_eq!(store.reconcile(&first).await.unwrap(), 0);
        assert_eq!(store.reconcile(&first).await.unwrap(), 0);
        drop(store);
        let store = Store::open(&path).await.unwrap();
        let edited = users(&[("a", "2"), ("b", "1"), ("d", "1")]);
        assert_eq!(store.reconcile(&edited).await.unwrap(), 2);
        assert!(counter(&store, "a").await > 0 && counter(&store, "c").await > 0);
        assert_eq!((counter(&store, "b").await, counter(&store, "d").await), (0, 0));
        assert_eq!(store.reconcile(&edited).await.unwrap(), 2);
    }

    #[tokio::test]
    async fn a_removed_user_loses_all_grants() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("auth.db")).await.unwrap();
        let rules = [
            rule("andrew", "a", "*", None),
            rule("andrew", "b", "*", None),
            rule("everyone", "b", "*", None),
        ];
        store.grant(&rules, 0).await.unwrap();
        assert_eq!(store.revoke_all(&"andrew".parse().unwrap()).await.unwrap(), 2);
        assert_eq!(store.policy().await.unwrap().rules().len(), 1);
        assert_eq!(counter(&store, "andrew").await, 1);
    }
}
