//! The acts that change who is in which group.
//!
//! A token carries what its subject might do as a member, so that leaving a group takes something
//! away; so does joining one that a deny names.

use berth_shared::{
    database::Statements,
    rights::Effect,
    subject::{Grantee, GroupName, Subject},
};

use super::{Database, Error, counters::raise, members::own, transaction::Transaction};
use crate::audit::Act;

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
        self.act((group, members), move |tx, &(group, members)| {
            Box::pin(async move {
                let mut changed = Vec::new();
                for member in members {
                    if change(tx, group, member, joins).await? {
                        changed.push(member.clone());
                    }
                }
                Ok(changed)
            })
        })
        .await
    }
}

/// Adds one member or takes one out, with its row in the audit. Whether that changed something.
pub(super) async fn change(
    transaction: &mut Transaction<'_>,
    group: &GroupName,
    member: &Subject,
    joins: bool,
) -> Result<bool, Error> {
    let statement = if joins {
        "INSERT INTO group_members (group_name, member) VALUES ($1, $2) ON CONFLICT DO NOTHING"
    } else {
        "DELETE FROM group_members WHERE group_name = $1 AND member = $2"
    };
    if transaction.run(statement, (group, member.claim())).await? == 0 {
        return Ok(false);
    }
    if !joins || is_denied(transaction, group).await? {
        raise(transaction, &own(member)).await?;
    }
    let act = if joins { Act::GroupAdd } else { Act::GroupRemove };
    transaction.record(&act(group, member)).await?;
    Ok(true)
}

/// Whether a deny names `group`.
async fn is_denied(transaction: &mut Transaction<'_>, group: &GroupName) -> Result<bool, Error> {
    let denies = "SELECT EXISTS (SELECT 1 FROM grants WHERE grantee = $1 AND effect = $2)";
    transaction.one(denies, (Grantee::Group(group.clone()), Effect::Deny)).await
}
