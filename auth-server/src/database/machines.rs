//! What robots and trusts have in common in the database: names, rules and groups.

use berth_shared::{
    clock::UnixSeconds,
    rights::Rule,
    subject::{Grantee, RobotName},
};
use sqlx::{Sqlite, query::Query, sqlite::SqliteArguments};

use super::{
    Database, Error,
    rules::{add_all, forget},
    transaction::{begin, record},
};
use crate::audit::Act;

/// Adds a row by the statement `insert`, with its act and first rules. Whether it was added.
pub(super) async fn add(
    database: &Database,
    insert: Query<'_, Sqlite, SqliteArguments>,
    act: &Act<'_>,
    rules: &[Rule],
    now: UnixSeconds,
) -> Result<bool, Error> {
    let mut writer = database.writer.lock().await;
    let mut transaction = begin(&mut writer).await?;
    if insert.execute(&mut *transaction).await?.rows_affected() == 0 {
        return Ok(false);
    }
    record(&mut transaction, &database.author, act).await?;
    add_all(&mut transaction, &database.author, rules, now).await?;
    transaction.commit().await?;
    Ok(true)
}

/// Deletes the row of `name` by the statement `delete`, and with it rules and groups, and voids
/// the tokens. Whether there was one.
pub(super) async fn remove(
    database: &Database,
    delete: &'static str,
    name: &RobotName,
    act: &Act<'_>,
) -> Result<bool, Error> {
    let mut connection = database.writer.lock().await;
    let mut transaction = begin(&mut connection).await?;
    let removed = sqlx::query(delete).bind(name.as_str()).execute(&mut *transaction).await?;
    if removed.rows_affected() == 0 {
        return Ok(false);
    }
    forget(&mut transaction, &Grantee::Robot(name.clone())).await?;
    record(&mut transaction, &database.author, act).await?;
    transaction.commit().await?;
    Ok(true)
}
