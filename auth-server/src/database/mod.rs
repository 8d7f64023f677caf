//! What is allowed, and what was taken away: the database that `auth-server` and `authctl` share.
//!
//! From the bottom up: `sqlite` is what is the engine's own, `row` reads values, `transaction` does
//! an act and writes its row of the audit, and [`counters`] and `members` say whom it concerns.
//! [`policy`] is what is read as a whole, robots and trusts included, and `reader` keeps it in memory.
//! `handle` opens the database, for reading and for acts. Above are the tables, each with its acts as
//! operations of [`Database`]: [`rules`], [`groups`], [`robots`] and [`trusts`], with `machines` for
//! what those have in common, [`users`] as the htpasswd file last showed them, [`tokens`]; [`apply`]
//! makes all that what a file says. [`refresh_tokens`] and [`sign_in_addresses`] are kept here and are
//! no part of the policy, and [`audit`] keeps what happened. [`snapshot`] looks at one that is not open.
//! Which rule decides is not known here: that is [`berth_shared::rights`], one function for both
//! servers.
//!
//! **The counter.** One sequence serves the whole database. Whatever takes something away from a
//! grantee moves the sequence on and writes its new value down as that grantee's counter, in the
//! transaction that takes it away. A token carries the sequence as it was before anything about
//! its subject was looked at, and is void once a larger counter stands for its subject. So no
//! token can survive an act that it did not see, whatever the clocks say. Granting moves nothing.
//! Counters that every token has outlived are cleared away, see [`counters`].

pub mod apply;
pub mod audit;
pub mod counters;
pub mod groups;
mod handle;
mod hour;
mod machines;
mod members;
pub mod policy;
mod postgres;
mod reader;
pub mod refresh_tokens;
pub mod robots;
mod row;
pub mod rules;
#[cfg(test)]
mod samples;
pub mod sealed_key;
pub mod sign_in_addresses;
pub mod signing_keys;
pub mod snapshot;
mod sqlite;
pub mod tokens;
mod transaction;
pub mod trusts;
pub mod user_hashes;
pub mod user_table;
pub mod users;

use std::path::PathBuf;

use berth_shared::{database as statement, sqlite::Error as FileError};

pub use handle::Database;

/// The database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be opened or made.
    #[error("opening the database {}", .0.display())]
    Open(PathBuf, #[source] Box<dyn std::error::Error + Send + Sync>),
    /// A later version of Berth has written to it.
    #[error(
        "the database {} was written by a newer version of Berth: install that version again",
        .0.display()
    )]
    Newer(PathBuf),
    /// Another file lies where the database lay when it was opened.
    #[error("the database {} was moved or replaced: restart the server", .0.display())]
    Replaced(PathBuf),
    /// A statement failed, or a row holds something that no version of Berth writes.
    #[error(transparent)]
    Statement(#[from] statement::Error),
    /// The tables at the server are another database's now.
    #[error("the database at database.url was replaced by another: restart the server")]
    Exchanged,
    /// A look at the database that others waited for failed.
    #[error("the database could not be looked at a moment ago")]
    Unseen,
    /// What was asked for is done with a file of SQLite alone.
    #[error(
        "this is done with a database in a file alone: with [database], by PostgreSQL's own means"
    )]
    OfFile,
    /// SQLite finds the file damaged.
    #[error("the database is damaged: {0}")]
    Damaged(String),
    /// What is to be written has no form as JSON.
    #[error("writing JSON into the database")]
    Json(#[from] serde_json::Error),
    /// The system gives no randomness.
    #[error("the system gives no randomness")]
    Randomness,
}

impl Error {
    /// Whether asking again helps nobody: it is another database by now, or rows hold what they cannot.
    #[must_use]
    pub fn stays(&self) -> bool {
        matches!(
            self,
            Self::Replaced(_)
                | Self::Exchanged
                | Self::Damaged(_)
                | Self::Statement(statement::Error::Corrupt(_) | statement::Error::Newer)
        )
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        Self::Statement(error.into())
    }
}

impl From<FileError> for Error {
    fn from(error: FileError) -> Self {
        match error {
            FileError::File(path, source) => Self::Open(path, source.into()),
            FileError::Migrate(path, source) => Self::Open(path, source.into()),
            FileError::Newer(path) => Self::Newer(path),
            FileError::Query(source) => source.into(),
        }
    }
}
