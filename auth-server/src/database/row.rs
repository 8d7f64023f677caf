//! Rows of the database, read into values with a grammar.

use std::str::FromStr;

use berth_shared::{rights::Rule, subject::Subject};
use sqlx::{Row, sqlite::SqliteRow};

use super::Error;

/// Reads a row of `grants`.
pub(super) fn read_rule(row: &SqliteRow) -> Result<Rule, Error> {
    Ok(Rule {
        grantee: parse(row, "grantee")?,
        pattern: parse(row, "pattern")?,
        effect: parse(row, "effect")?,
        actions: parse(row, "actions")?,
        expires: row.try_get("expires")?,
    })
}

/// Reads a user or a robot.
pub(super) fn read_member(row: &SqliteRow, column: &str) -> Result<Subject, Error> {
    let text: String = row.try_get(column)?;
    match Subject::from_claim(&text) {
        Ok(member @ (Subject::User(_) | Subject::Robot(_))) => Ok(member),
        _ => Err(Error::Row(text)),
    }
}

/// Reads a value with a grammar. What does not parse stops everything: to skip a row would be to
/// guess at what somebody may do.
pub(super) fn parse<T: FromStr>(row: &SqliteRow, column: &str) -> Result<T, Error> {
    let text: String = row.try_get(column)?;
    text.parse().map_err(|_| Error::Row(text))
}

/// Reads a counter; the database has signed integers only.
pub(super) fn count(row: &SqliteRow, column: &str) -> Result<u64, Error> {
    let value: i64 = row.try_get(column)?;
    u64::try_from(value).map_err(|_| Error::Row(value.to_string()))
}
