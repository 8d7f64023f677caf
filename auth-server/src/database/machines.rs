//! What robots and trusts have in common in the database: names, rules and groups.

use berth_shared::{
    clock::UnixSeconds,
    database::{Bind, Statements},
    rights::Rule,
    subject::{Grantee, RobotName},
};

use super::{
    Database, Error,
    rules::{add_all, forget},
};
use crate::audit::Act;

/// Adds a row of `values` by the statement `insert`, with its act and first rules. Whether it was added.
pub(super) async fn add(
    database: &Database,
    insert: &'static str,
    values: impl Bind + Sync,
    act: &Act<'_>,
    rules: &[Rule],
    now: UnixSeconds,
) -> Result<bool, Error> {
    let given = (values, act, rules);
    let added = database.act(given, move |tx, (values, act, rules)| {
        Box::pin(async move {
            if tx.run(insert, values).await? == 0 {
                return Ok(false);
            }
            tx.record(act).await?;
            add_all(tx, rules, now).await?;
            Ok(true)
        })
    });
    added.await
}

/// Deletes the row of `name` by the statement `delete`, and with it rules and groups, and voids
/// the tokens. Whether there was one.
pub(super) async fn remove(
    database: &Database,
    delete: &'static str,
    name: &RobotName,
    act: &Act<'_>,
) -> Result<bool, Error> {
    let removed = database.act((name, act), move |tx, &(name, act)| {
        Box::pin(async move {
            if tx.run(delete, name).await? == 0 {
                return Ok(false);
            }
            forget(tx, &Grantee::Robot(name.clone())).await?;
            tx.record(act).await?;
            Ok(true)
        })
    });
    removed.await
}
