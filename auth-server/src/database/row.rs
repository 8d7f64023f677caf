//! Rows of the database, read into values with a grammar. What does not parse stops everything: to skip
//! a row would be to guess at what somebody may do.

use std::str::FromStr;

use berth_shared::{
    database::{Column, Error, Index, Record, Row},
    rights::Rule,
    subject::Subject,
};

/// A rule, as `grants` has it.
pub(super) struct Grant(pub(super) Rule);

impl Row for Grant {
    fn of(row: &Record) -> Result<Self, Error> {
        Ok(Self(Rule {
            grantee: Column::at(row, "grantee")?,
            pattern: Column::at(row, "pattern")?,
            effect: Column::at(row, "effect")?,
            actions: Column::at(row, "actions")?,
            expires: Column::at(row, "expires")?,
        }))
    }
}

/// A user or a robot.
pub(super) struct Member(pub(super) Subject);

impl Column for Member {
    fn at(row: &Record, index: impl Index) -> Result<Self, Error> {
        let text = String::at(row, index)?;
        match Subject::from_claim(&text) {
            Ok(member @ (Subject::User(_) | Subject::Robot(_))) => Ok(Self(member)),
            _ => Err(Error::Corrupt(text)),
        }
    }
}

/// Reads a value with a grammar that is no column by itself.
pub(super) fn parse<T: FromStr>(text: String) -> Result<T, Error> {
    text.parse().map_err(|_| Error::Corrupt(text))
}
