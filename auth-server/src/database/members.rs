//! Who is in a group, for what concerns each of its members.

use berth_shared::subject::{Grantee, Subject};
use sqlx::SqliteConnection;

use super::{Error, row::read_member};

/// Whom it concerns when `grantee` loses something: each member of a group, since tokens do not know
/// groups.
pub(super) async fn losers(
    transaction: &mut SqliteConnection,
    grantee: &Grantee,
) -> Result<Vec<Grantee>, Error> {
    let Grantee::Group(group) = grantee else { return Ok(vec![grantee.clone()]) };
    let rows = sqlx::query("SELECT member FROM group_members WHERE group_name = $1")
        .bind(group.as_str())
        .fetch_all(transaction)
        .await?;
    let mut members = Vec::new();
    for row in rows {
        members.extend(own(&read_member(&row, "member")?));
    }
    Ok(members)
}

/// What names exactly this subject.
pub(super) fn own(member: &Subject) -> Vec<Grantee> {
    member.grantees().take(1).collect()
}
