//! A transaction that changes something, and the rows of the audit in it.

use serde_json::Value;
use sqlx::{Connection, Sqlite, SqliteConnection, Transaction};

use super::Error;
use crate::audit::{Act, Author};

/// Begins as a writer, so that what is read still holds when something is written.
pub(super) async fn begin(
    connection: &mut SqliteConnection,
) -> Result<Transaction<'_, Sqlite>, Error> {
    Ok(connection.begin_with("BEGIN IMMEDIATE").await?)
}

/// Writes down an act in the transaction that does it.
pub(super) async fn record(
    transaction: &mut SqliteConnection,
    author: &Author,
    act: &Act<'_>,
) -> Result<(), Error> {
    let (word, subject, mut detail) = act.parts();
    detail.extend(author.more.clone());
    sqlx::query(
        "INSERT INTO audit (at, event, subject, actor, detail) VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(author.clock.now())
    .bind(word)
    .bind(subject)
    .bind(&author.name)
    .bind(Value::Object(detail).to_string())
    .execute(transaction)
    .await?;
    Ok(())
}
