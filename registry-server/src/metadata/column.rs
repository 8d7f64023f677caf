//! Values as they stand in the database, read and written with care.

use super::Error;

/// Reads a value with a grammar out of the database.
pub(crate) fn parse<T: std::str::FromStr>(text: &str) -> Result<T, Error> {
    text.parse().map_err(|_| Error::Corrupt(text.to_owned()))
}

/// Sizes are unsigned everywhere but in SQL.
pub(crate) fn unsigned(number: i64) -> Result<u64, Error> {
    u64::try_from(number).map_err(|_| Error::Corrupt(number.to_string()))
}

/// See [`unsigned`].
pub(crate) fn signed(number: u64) -> Result<i64, Error> {
    i64::try_from(number).map_err(|_| Error::Corrupt(number.to_string()))
}
