//! The acts that change who is in which group.
//!
//! A token carries what its subject might do as a member, so that leaving a group takes something
//! away; so does joining one that a deny names.

use berth_shared::{
    rights::Effect,
    subject::{Grantee, GroupName, Subject},
};
use sqlx::SqliteConnection;

use super::{
    Database, Error,
    counters::raise,
    members::own,
    transaction::{begin, record},
};
use crate::audit::{Act, Author};

impl Database {
    /// Makes `members` (users and robots) members of `group`. Gives back those who were not.
    ///
    /// # Errors
    /// When the database cannot be written to; nobody is added then.
    pub async fn join_group(
        &self,
        group: &GroupName,
        members: &[Subject],
    ) -> Result<Vec<Subject>, Error> {
        self.change_group(group, members, true).await
    }

    /// Takes `members` out of `group`, and voids their tokens. Gives back those who were in it.
    ///
    /// # Errors
    /// When the database cannot be written to; nobody is taken out then.
    pub async fn leave_group(
        &self,
        group: &GroupName,
        members: &[Subject],
    ) -> Result<Vec<Subject>, Error> {
        self.change_group(group, members, false).await
    }

    async fn change_group(
        &self,
        group: &GroupName,
        members: &[Subject],
        joins: bool,
    ) -> Result<Vec<Subject>, Error> {
        let mut writer = self.writer.lock().await;
        let mut transaction = begin(&mut writer).await?;
        let mut changed = Vec::new();
        for member in members {
            if change(&mut transaction, &self.author, group, member, joins).await? {
                changed.push(member.clone());
            }
        }
        transaction.commit().await?;
        Ok(changed)
    }
}

/// Adds one member or takes one out, with its row in the audit. Whether that changed something.
pub(super) async fn change(
    transaction: &mut SqliteConnection,
    author: &Author,
    group: &GroupName,
    member: &Subject,
    joins: bool,
) -> Result<bool, Error> {
    let statement = if joins {
        "INSERT INTO group_members (group_name, member) VALUES ($1, $2) ON CONFLICT DO NOTHING"
    } else {
        "DELETE FROM group_members WHERE group_name = $1 AND member = $2"
    };
    let query = sqlx::query(statement).bind(group.as_str()).bind(member.claim());
    if query.execute(&mut *transaction).await?.rows_affected() == 0 {
        return Ok(false);
    }
    if !joins || is_denied(transaction, group).await? {
        raise(transaction, &own(member)).await?;
    }
    let act = if joins { Act::GroupAdd } else { Act::GroupRemove };
    record(transaction, author, &act(group, member)).await?;
    Ok(true)
}

/// Whether a deny names `group`.
async fn is_denied(transaction: &mut SqliteConnection, group: &GroupName) -> Result<bool, Error> {
    let denies = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM grants WHERE grantee = $1 AND effect = $2)",
    );
    let denies = denies.bind(Grantee::Group(group.clone()).to_string()).bind(Effect::Deny.word());
    Ok(denies.fetch_one(transaction).await?)
}
