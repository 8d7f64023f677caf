//! Why a database does not do what is asked, whichever engine it is in.

use sqlx::migrate::MigrateError;

use super::state::{AWAY, OF_A_POOLER, REPEATED, state_of};

/// The database failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A query failed.
    #[error("asking the database")]
    Query(#[from] sqlx::Error),
    /// The schema cannot be brought to what the program needs.
    #[error("preparing the database")]
    Migrate(#[source] MigrateError),
    /// The database was written by a newer program.
    #[error("the database was written by a newer version of Berth: use that version, or newer")]
    Newer,
    /// The database was written by an older program.
    #[error("the database was written by an older version of Berth: start this one once")]
    Older,
    /// The database holds a value that cannot have been written by the program.
    #[error("the database holds {0:?} where it cannot be")]
    Corrupt(String),
    /// The database is being closed.
    #[error("the database is closing")]
    Closed,
    /// The server of the database does not answer, or may not be written just now.
    #[error("the database does not answer, or cannot be written just now")]
    Away(#[source] sqlx::Error),
    /// The server of the database is not one that the program can keep its tables in.
    #[error("{0}")]
    Unfit(String),
}

impl Error {
    /// What PostgreSQL says, told by what can be done about it.
    pub fn of_postgres(error: impl Into<Self>) -> Self {
        match error.into() {
            Self::Query(source) => {
                let state = state_of(&source);
                let begins = |with: &[&str]| {
                    state
                        .as_deref()
                        .is_some_and(|state| with.iter().any(|it| state.starts_with(it)))
                };
                match &source {
                    _ if begins(&OF_A_POOLER) => Self::Unfit(
                        "a pooler stands before the database that knows no prepared statements: \
                         database.url has to lead to the server itself"
                            .to_owned(),
                    ),
                    _ if begins(&REPEATED) => Self::Query(source),
                    _ if begins(&AWAY) => Self::Away(source),
                    sqlx::Error::Io(_)
                    | sqlx::Error::Tls(_)
                    | sqlx::Error::Protocol(_)
                    | sqlx::Error::PoolTimedOut
                    | sqlx::Error::WorkerCrashed => Self::Away(source),
                    sqlx::Error::PoolClosed => Self::Closed,
                    _ => Self::Query(source),
                }
            }
            Self::Migrate(MigrateError::Execute(source)) => Self::of_postgres(source),
            error => error,
        }
    }
}
