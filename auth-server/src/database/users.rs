//! The users as the htpasswd file last showed them, so that whoever changed or went is noticed, also
//! when the file was edited by hand or while no server ran.
//!
//! `authctl` saves the file within the transaction of its act: a server that looks at the file
//! meanwhile waits for it, and does not take the change for one that was made by hand.

use std::collections::BTreeMap;

use berth_shared::{
    database::Statements,
    subject::{Grantee, UserName},
};

use super::{
    Database, Error, counters::raise, policy::sequence, refresh_tokens, rules::forget,
    sign_in_addresses, transaction::Transaction,
};
use crate::audit::Act;

/// The users of an htpasswd file, each with a fingerprint of the stored hash.
pub(super) type Users = BTreeMap<UserName, String>;

impl Database {
    /// Takes every rule and group of a user away who has been removed from the htpasswd file:
    /// whoever gets that name later must not inherit them. `users` are those who are left, as for
    /// [`reconcile_users`](Self::reconcile_users). Gives back how many rules there were.
    ///
    /// # Errors
    /// When the database cannot be written to.
    pub async fn remove_user<E: From<Error>>(
        &self,
        users: &Users,
        user: &UserName,
        save: impl FnOnce() -> Result<(), E>,
    ) -> Result<u64, E> {
        let mut writer = self.file().await?;
        let mut transaction = Transaction::begin(&mut writer, &self.author).await?;
        save()?;
        compare(&mut transaction, users, Some(user)).await?;
        let rules = forget(&mut transaction, &Grantee::User(user.clone())).await?;
        transaction.record(&Act::UserRemove(user, rules)).await?;
        transaction.commit().await?;
        Ok(rules)
    }

    /// Writes down that `user` was added or got a new password, by `act`, and does what
    /// [`reconcile_users`](Self::reconcile_users) does.
    ///
    /// # Errors
    /// When the database cannot be written to.
    pub async fn set_user<E: From<Error>>(
        &self,
        users: &Users,
        user: &UserName,
        act: &Act<'_>,
        save: impl FnOnce() -> Result<(), E>,
    ) -> Result<(), E> {
        let mut writer = self.file().await?;
        let mut transaction = Transaction::begin(&mut writer, &self.author).await?;
        save()?;
        compare(&mut transaction, users, Some(user)).await?;
        transaction.record(act).await?;
        Ok(transaction.commit().await?)
    }

    /// Compares the users of the htpasswd file with those last seen, and voids the tokens of every
    /// user whose password has changed or who is gone, refresh tokens too. The fingerprints are those of
    /// [`crate::users::htpasswd`]. Gives back the sequence as it stands then.
    ///
    /// # Errors
    /// When the database cannot be written to; the next call finds the same differences again.
    pub async fn reconcile_users(&self, users: &Users) -> Result<u64, Error> {
        let compared = self.act(users, |tx, &users| {
            Box::pin(async move {
                compare(tx, users, None).await?;
                sequence(&mut tx.connection()).await
            })
        });
        compared.await
    }
}

/// Writes down what the file says, raises whoever has changed or gone, and records what was found;
/// but for `own`, about whom the caller knows more.
async fn compare(
    transaction: &mut Transaction<'_>,
    users: &Users,
    own: Option<&UserName>,
) -> Result<(), Error> {
    let seen: Vec<(UserName, String)> =
        transaction.all("SELECT name, fingerprint FROM htpasswd_seen", ()).await?;
    let seen = Users::from_iter(seen);
    let added = users.keys().filter(|name| !seen.contains_key(*name));
    for name in seen.keys().chain(added) {
        let (old, new) = (seen.get(name), users.get(name));
        if old == new {
            continue;
        }
        if old.is_some() {
            transaction.run("DELETE FROM htpasswd_seen WHERE name = $1", name).await?;
            let user = Grantee::User(name.clone());
            refresh_tokens::forget(transaction, &user).await?;
            raise(transaction, &[user]).await?;
        }
        let act = if let Some(print) = new {
            let remember = "INSERT INTO htpasswd_seen (name, fingerprint) VALUES ($1, $2)";
            transaction.run(remember, (name, print)).await?;
            if old.is_some() { Act::HtpasswdChange(name) } else { Act::HtpasswdAdd(name) }
        } else {
            sign_in_addresses::forget(transaction, name).await?;
            Act::HtpasswdRemove(name)
        };
        if Some(name) != own {
            transaction.record(&act).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{
        super::samples::{allow, counter},
        *,
    };
    use berth_shared::clock::UnixSeconds;

    fn users(pairs: &[(&str, &str)]) -> Users {
        let user = |(name, print): &(&str, &str)| (name.parse().unwrap(), (*print).to_owned());
        pairs.iter().map(user).collect()
    }

    #[tokio::test]
    async fn a_changed_or_removed_user_is_raised_also_when_edited_while_down() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("auth.db");
        let database = Database::open(&path).await.unwrap();
        let first = users(&[("a", "1"), ("b", "1"), ("c", "1")]);
        assert_eq!(database.reconcile_users(&first).await.unwrap(), 0);
        assert_eq!(database.reconcile_users(&first).await.unwrap(), 0);
        drop(database);
        let database = Database::open(&path).await.unwrap();
        let edited = users(&[("a", "2"), ("b", "1"), ("d", "1")]);
        assert_eq!(database.reconcile_users(&edited).await.unwrap(), 2);
        assert!(counter(&database, "a").await > 0 && counter(&database, "c").await > 0);
        assert_eq!((counter(&database, "b").await, counter(&database, "d").await), (0, 0));
        assert_eq!(database.reconcile_users(&edited).await.unwrap(), 2);
    }

    #[tokio::test]
    async fn a_removed_user_loses_all_grants() {
        let dir = tempfile::tempdir().unwrap();
        let database = Database::open(&dir.path().join("auth.db")).await.unwrap();
        let rules = [
            allow("andrew", "a", "*", None),
            allow("andrew", "b", "*", None),
            allow("everyone", "b", "*", None),
        ];
        database.add_rules(&rules, UnixSeconds::new(0)).await.unwrap();
        let left = users(&[]);
        assert_eq!(
            database
                .remove_user(&left, &"andrew".parse().unwrap(), || Ok::<_, Error>(()))
                .await
                .unwrap(),
            2
        );
        assert_eq!(database.policy().await.unwrap().rules().len(), 1);
        assert_eq!(counter(&database, "andrew").await, 1);
    }
}
