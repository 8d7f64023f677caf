//! Who is in a group, for what concerns each of its members.

use berth_shared::{
    database::Statements,
    subject::{Grantee, Subject},
};

use super::{Error, row::Member, transaction::Transaction};

/// Whom it concerns when `grantee` loses something: each member of a group, since tokens do not know
/// groups.
pub(super) async fn losers(
    transaction: &mut Transaction<'_>,
    grantee: &Grantee,
) -> Result<Vec<Grantee>, Error> {
    let Grantee::Group(group) = grantee else { return Ok(vec![grantee.clone()]) };
    let statement = "SELECT member FROM group_members WHERE group_name = $1";
    let members: Vec<Member> = transaction.all(statement, group).await?;
    Ok(members.iter().flat_map(|Member(member)| own(member)).collect())
}

/// What names exactly this subject.
pub(super) fn own(member: &Subject) -> Vec<Grantee> {
    member.grantees().take(1).collect()
}
