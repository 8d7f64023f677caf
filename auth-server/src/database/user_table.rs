//! The users, where the database has them: a table in place of an htpasswd file, with what `authctl` does to it.
//!
//! A file that is mounted on each of several servers changes at different moments, and one of them would go on
//! giving tokens for an old password after another has voided them.

use std::collections::BTreeMap;

use berth_shared::{
    database::Statements,
    subject::{Grantee, UserName},
};

use super::{
    Database, Error, counters::raise, refresh_tokens, rules::forget, sign_in_addresses,
    transaction::Transaction, user_hashes::UserHashes,
};
use crate::audit::Act;

/// Users, each with the hash of the password as it stands in an htpasswd file.
type Users = BTreeMap<UserName, String>;

impl Database {
    /// Adds a user with the hash of their password to the table of users, or gives one of them another, by
    /// `act`; whether `is_there` says is looked at in the same transaction. Gives `false`, and does nothing,
    /// where it is otherwise.
    ///
    /// # Errors
    /// When the database cannot be written to.
    pub async fn put_user(
        &self,
        user: &UserName,
        hash: &str,
        is_there: bool,
        act: &Act<'_>,
    ) -> Result<bool, Error> {
        self.act((user, hash, act), move |tx, &(user, hash, act)| {
            Box::pin(async move {
                if is_user(tx, user).await? != is_there {
                    return Ok(false);
                }
                put(tx, user, hash, is_there).await?;
                tx.record(act).await.map(|()| true)
            })
        })
        .await
    }

    /// Takes a user out of the table, and every rule and group away. Gives back how many rules there were.
    ///
    /// # Errors
    /// When the database cannot be written to.
    pub async fn delete_user(&self, user: &UserName) -> Result<u64, Error> {
        let deleted = self.act(user, |tx, &user| {
            Box::pin(async move {
                delete(tx, user).await?;
                let rules = forget(tx, &Grantee::User(user.clone())).await?;
                tx.record(&Act::UserRemove(user, rules)).await.map(|()| rules)
            })
        });
        deleted.await
    }

    /// Makes the table of users say what `desired` says, each with a hash; with `prune` those go who are not
    /// there, with their rules. Gives back what was changed, or with `dry_run` what would be.
    ///
    /// # Errors
    /// When the database cannot be written to; nothing is changed then.
    pub async fn apply_users(
        &self,
        desired: &BTreeMap<UserName, String>,
        prune: bool,
        dry_run: bool,
    ) -> Result<UserChanges, Error> {
        let applied = self.act(desired, move |tx, &desired| {
            Box::pin(async move {
                let there: Vec<(String, String)> =
                    tx.all("SELECT name, hash FROM users", ()).await?;
                let changes = difference(desired, &UserHashes::of_rows(there), prune);
                if dry_run {
                    return Ok(changes);
                }
                for user in changes.added.iter().chain(&changes.changed) {
                    let is_there = changes.changed.contains(user);
                    put(tx, user, &desired[user], is_there).await?;
                    let act = if is_there { Act::UserPassword(user) } else { Act::UserAdd(user) };
                    tx.record(&act).await?;
                }
                for user in &changes.removed {
                    delete(tx, user).await?;
                    let rules = forget(tx, &Grantee::User(user.clone())).await?;
                    tx.record(&Act::UserRemove(user, rules)).await?;
                }
                Ok(changes)
            })
        });
        applied.await
    }
}

/// What makes the table of users say what was desired.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct UserChanges {
    /// Users who are not there.
    pub added: Vec<UserName>,
    /// Users with another hash there.
    pub changed: Vec<UserName>,
    /// Users who are there alone.
    pub removed: Vec<UserName>,
}

fn difference(desired: &Users, there: &Users, prune: bool) -> UserChanges {
    let mut changes = UserChanges::default();
    for (user, hash) in desired {
        match there.get(user) {
            None => changes.added.push(user.clone()),
            Some(held) if held != hash => changes.changed.push(user.clone()),
            Some(_) => {}
        }
    }
    if prune {
        changes.removed =
            there.keys().filter(|user| !desired.contains_key(*user)).cloned().collect();
    }
    changes
}

async fn is_user(transaction: &mut Transaction<'_>, user: &UserName) -> Result<bool, Error> {
    let found: Option<String> =
        transaction.optional("SELECT name FROM users WHERE name = $1", user).await?;
    Ok(found.is_some())
}

/// Writes a user's hash; one that was there before voids what was given out for it.
async fn put(
    transaction: &mut Transaction<'_>,
    user: &UserName,
    hash: &str,
    was_there: bool,
) -> Result<(), Error> {
    let put = "INSERT INTO users (name, hash, changed) VALUES ($1, $2, $3)
         ON CONFLICT (name) DO UPDATE SET hash = excluded.hash, changed = excluded.changed";
    let now = transaction.author().clock.now();
    transaction.run(put, (user, hash, now)).await?;
    if was_there {
        let user = Grantee::User(user.clone());
        refresh_tokens::forget(transaction, &user).await?;
        raise(transaction, &[user]).await?;
    }
    Ok(())
}

async fn delete(transaction: &mut Transaction<'_>, user: &UserName) -> Result<(), Error> {
    sign_in_addresses::forget(transaction, user).await?;
    refresh_tokens::forget(transaction, &Grantee::User(user.clone())).await?;
    transaction.run("DELETE FROM users WHERE name = $1", user).await.map(drop)
}
