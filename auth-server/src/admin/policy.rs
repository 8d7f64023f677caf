//! Every rule and group at once.

use berth_shared::{rights::Rule, subject::Grantee};

use super::{Admin, Error, Warning};
use crate::database::apply::{Changes, Desired};

/// Leaves out of `desired` what has ended, since it would be added anew with every run. Gives it
/// back.
pub fn leave_out_ended(admin: &Admin, desired: &mut Desired) -> Vec<Rule> {
    let now = admin.now();
    let (holding, ended) = desired.rules.drain(..).partition(|rule| rule.holds_at(now));
    desired.rules = holding;
    ended
}

/// What may not be meant of `desired`.
///
/// # Errors
/// When the database cannot be used.
pub async fn warnings(admin: &Admin, desired: &Desired) -> Result<Vec<Warning>, Error> {
    let policy = admin.policy().await?;
    let mut named: Vec<_> = desired.rules.iter().map(|rule| &rule.grantee).collect();
    named.dedup();
    let is_made =
        |one: &&Grantee| matches!(one, Grantee::Group(group) if desired.groups.contains_key(group));
    let others = named.into_iter().filter(|one| !is_made(one));
    Ok(others.filter_map(|one| Warning::of_nobody(one, admin, &policy)).collect())
}

/// Adds what `desired` has and the database has not; with `prune` takes away what only the database
/// has. Gives back what was changed, or in a dry run what would be.
///
/// # Errors
/// When the database cannot be written to; nothing is changed then.
pub async fn apply(
    admin: &Admin,
    desired: &Desired,
    prune: bool,
    dry_run: bool,
) -> Result<Changes, Error> {
    Ok(admin.database().await?.apply(desired, prune, dry_run, admin.now()).await?)
}
