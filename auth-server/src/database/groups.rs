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
    Error,
    counters::raise,
    members::own,
    transaction::{begin, record},
    writer::Writer,
};
use crate::audit::Act;

/// The table of who is in which group.
#[derive(Debug, Clone, Copy)]
pub struct GroupTable<'a> {
    pub(super) writer: &'a Writer,
}

impl GroupTable<'_> {
    /// Makes `members` (users and robots) members of `group`. Gives back those who were not.
    ///
    /// # Errors
    /// When the database cannot be written to; nobody is added then.
    pub async fn join(
        &self,
        group: &GroupName,
        members: &[Subject],
    ) -> Result<Vec<Subject>, Error> {
        let mut writer = self.writer.lock().await;
        let mut transaction = begin(&mut writer).await?;
        let mut joined = Vec::new();
        for member in members {
            if join(&mut transaction, group, member).await? {
                record(&mut transaction, self.writer.author(), &Act::GroupAdd(group, member))
                    .await?;
                joined.push(member.clone());
            }
        }
        transaction.commit().await?;
        Ok(joined)
    }

    /// Takes `members` out of `group`, and voids their tokens. Gives back those who were in it.
    ///
    /// # Errors
    /// When the database cannot be written to; nobody is taken out then.
    pub async fn leave(
        &self,
        group: &GroupName,
        members: &[Subject],
    ) -> Result<Vec<Subject>, Error> {
        let mut writer = self.writer.lock().await;
        let mut transaction = begin(&mut writer).await?;
        let mut left = Vec::new();
        for member in members {
            if leave(&mut transaction, group, member).await? {
                record(&mut transaction, self.writer.author(), &Act::GroupRemove(group, member))
                    .await?;
                left.push(member.clone());
            }
        }
        transaction.commit().await?;
        Ok(left)
    }
}

/// Adds one member; whether they were none before.
pub(super) async fn join(
    transaction: &mut SqliteConnection,
    group: &GroupName,
    member: &Subject,
) -> Result<bool, Error> {
    let added = sqlx::query(
        "INSERT INTO group_members (group_name, member) VALUES ($1, $2) ON CONFLICT DO NOTHING",
    )
    .bind(group.as_str())
    .bind(member.claim())
    .execute(&mut *transaction)
    .await?
    .rows_affected();
    let denies: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM grants WHERE grantee = $1 AND effect = $2)",
    )
    .bind(Grantee::Group(group.clone()).to_string())
    .bind(Effect::Deny.word())
    .fetch_one(&mut *transaction)
    .await?;
    if added > 0 && denies {
        raise(transaction, &own(member)).await?;
    }
    Ok(added > 0)
}

/// Takes one member out; whether they were one.
pub(super) async fn leave(
    transaction: &mut SqliteConnection,
    group: &GroupName,
    member: &Subject,
) -> Result<bool, Error> {
    let removed = sqlx::query("DELETE FROM group_members WHERE group_name = $1 AND member = $2")
        .bind(group.as_str())
        .bind(member.claim())
        .execute(&mut *transaction)
        .await?
        .rows_affected();
    if removed > 0 {
        raise(transaction, &own(member)).await?;
    }
    Ok(removed > 0)
}
