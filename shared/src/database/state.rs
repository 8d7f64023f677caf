//! What PostgreSQL says by its SQLSTATEs, and what is said where it says nothing.

use std::io;

/// SQLSTATEs of what another transaction stood in the way of.
pub(super) const REPEATED: [&str; 5] = ["40001", "40P01", "23503", "23505", "55P03"];

/// Classes of SQLSTATEs, and some whole ones, of a server that cannot do just now what is asked:
/// connection, resources, operator, and a standby.
pub(super) const AWAY: [&str; 5] = ["08", "53", "57", "25006", "25P03"];

/// SQLSTATEs of a pooler in transaction mode that does not know prepared statements.
pub(super) const OF_A_POOLER: [&str; 2] = ["42P05", "26000"];

/// What is said of a server that says nothing.
#[must_use]
pub fn no_answer() -> sqlx::Error {
    io::Error::new(io::ErrorKind::TimedOut, "no answer in time").into()
}

/// The SQLSTATE of what another transaction stood in the way of.
#[must_use]
pub fn is_repeated(error: &sqlx::Error) -> Option<&'static str> {
    let state = state_of(error)?;
    REPEATED.into_iter().find(|repeated| *repeated == state)
}

pub(super) fn state_of(error: &sqlx::Error) -> Option<String> {
    error.as_database_error()?.code().map(|code| code.into_owned())
}
