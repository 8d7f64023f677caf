//! What robots and trusts have in common in the database: names, rules and groups.

use berth_shared::subject::{Grantee, RobotName};

use super::{
    Database, Error,
    rules::forget,
    transaction::{begin, record},
};
use crate::audit::Act;

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
