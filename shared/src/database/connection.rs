//! A connection to the engine that the database is in, SQLite or PostgreSQL; what goes into the places of
//! a statement there, and the rows that come. Each statement stands once, in words that both know.

use std::time::Duration;

use sqlx::{
    Arguments, ColumnIndex, Decode, Encode, PgConnection, Postgres, Sqlite, SqliteConnection, Type,
    ValueRef,
    postgres::{PgArguments, PgRow},
    sqlite::{SqliteArguments, SqliteRow},
};

use super::Error;

/// A connection.
pub enum Connection<'c> {
    /// To a file of SQLite.
    Sqlite(&'c mut SqliteConnection),
    /// To a server, which may be gone without a word: an answer is waited for so long.
    Postgres(&'c mut PgConnection, Duration),
}

/// A row that came.
pub enum Record {
    /// Out of SQLite.
    Sqlite(SqliteRow),
    /// Out of PostgreSQL.
    Postgres(PgRow),
}

/// What goes into the places of a statement, in their order.
pub enum Places<'p> {
    /// On SQLite.
    Sqlite(&'p mut SqliteArguments),
    /// On PostgreSQL.
    Postgres(&'p mut PgArguments),
}

/// Says which column: its number, or its name.
pub trait Index: ColumnIndex<SqliteRow> + ColumnIndex<PgRow> + Copy {}

impl<I: ColumnIndex<SqliteRow> + ColumnIndex<PgRow> + Copy> Index for I {}

/// What both engines know how to read.
pub trait Read<'r>:
    Decode<'r, Sqlite> + Type<Sqlite> + Decode<'r, Postgres> + Type<Postgres>
{
}

impl<'r, T: Decode<'r, Sqlite> + Type<Sqlite> + Decode<'r, Postgres> + Type<Postgres>> Read<'r>
    for T
{
}

/// What both engines know how to take.
pub trait Put<'v>:
    Encode<'v, Sqlite> + Type<Sqlite> + Encode<'v, Postgres> + Type<Postgres>
{
}

impl<'v, T: Encode<'v, Sqlite> + Type<Sqlite> + Encode<'v, Postgres> + Type<Postgres>> Put<'v>
    for T
{
}

impl Record {
    /// The value in a column.
    ///
    /// # Errors
    /// When there is no such column, or the value is not of the type.
    pub fn get<'r, T: Read<'r>>(&'r self, index: impl Index) -> Result<T, Error> {
        Ok(match self {
            Self::Sqlite(row) => sqlx::Row::try_get(row, index)?,
            Self::Postgres(row) => sqlx::Row::try_get(row, index)?,
        })
    }

    /// Whether there is none in it.
    ///
    /// # Errors
    /// When there is no such column.
    pub fn is_null(&self, index: impl Index) -> Result<bool, Error> {
        Ok(match self {
            Self::Sqlite(row) => sqlx::Row::try_get_raw(row, index)?.is_null(),
            Self::Postgres(row) => sqlx::Row::try_get_raw(row, index)?.is_null(),
        })
    }
}

impl Places<'_> {
    /// Puts a value into the next place.
    ///
    /// # Errors
    /// When it has no form there.
    pub fn add<'v>(&mut self, value: impl Put<'v>) -> Result<(), Error> {
        let added = match self {
            Self::Sqlite(places) => places.add(value),
            Self::Postgres(places) => places.add(value),
        };
        Ok(added.map_err(sqlx::Error::Encode)?)
    }
}
