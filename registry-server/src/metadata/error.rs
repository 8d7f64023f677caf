//! Why the database does not do what is asked.

use berth_shared::{
    database::{self, is_repeated},
    digest::Digest,
    serve::budget::Busy,
    sqlite::Error as FileError,
};
use sqlx::migrate::MigrateError;

/// The database failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A query failed.
    #[error("asking the database")]
    Query(#[from] sqlx::Error),
    /// The schema cannot be brought to what this program needs.
    #[error("preparing the database")]
    Migrate(#[source] MigrateError),
    /// The database was written by a newer program.
    #[error("the database was written by a newer version of Berth: use that version, or newer")]
    Newer,
    /// The database was written by an older program.
    #[error("the database was written by an older version of Berth: start this one once")]
    Older,
    /// The database holds a value that cannot have been written by this program.
    #[error("the database holds {0:?} where it cannot be")]
    Corrupt(String),
    /// The writer has stopped, as it does during shutdown.
    #[error("the database is closing")]
    Closed,
    /// A write waited too long for its turn, took too long, or was undone with one that did. Nothing
    /// of it is kept.
    #[error("the database is busy")]
    Busy,
    /// What a write rests on was changed by another before it could be held. It is repeated.
    #[error("the database was changed meanwhile")]
    Overtaken,
    /// The server of the database does not answer, or may not be written just now.
    #[error("the database does not answer, or cannot be written just now")]
    Away(#[source] sqlx::Error),
    /// Nothing may be changed, whichever server is asked.
    #[error("the registry is read-only for maintenance")]
    ReadOnly,
    /// Whether anything may be changed could not be seen for a while.
    #[error("whether anything may be changed cannot be looked up")]
    SwitchUnknown,
    /// The server of the database is not one that registries can be kept in.
    #[error("{0}")]
    Unfit(String),
    /// What was asked for is done with a file of SQLite, or with none.
    #[error("this is not done with a database of that kind")]
    OfSqlite,
    /// A manifest requires these, and its repository lacks them. Nothing is stored.
    #[error("{} digests that the manifest names are not there", .0.len())]
    Missing(Vec<Digest>),
    /// Somebody looks up too much at once.
    #[error(transparent)]
    TooManyLookups(#[from] Busy),
}

impl From<FileError> for Error {
    fn from(error: FileError) -> Self {
        match error {
            FileError::File(_, source) => Self::Query(sqlx::Error::Io(source)),
            FileError::Migrate(_, source) => Self::Migrate(source),
            FileError::Newer(_) => Self::Newer,
            FileError::Query(source) => Self::Query(source),
        }
    }
}

impl From<database::Error> for Error {
    fn from(error: database::Error) -> Self {
        match error {
            database::Error::Query(source) => Self::Query(source),
            database::Error::Migrate(source) => Self::Migrate(source),
            database::Error::Newer => Self::Newer,
            database::Error::Older => Self::Older,
            database::Error::Corrupt(value) => Self::Corrupt(value),
            database::Error::Closed => Self::Closed,
            database::Error::Away(source) => Self::Away(source),
            database::Error::Unfit(why) => Self::Unfit(why),
        }
    }
}

impl Error {
    /// Whether it may work in a moment: the server is away, or another transaction stood in the way.
    pub(crate) fn passes(&self) -> bool {
        match self {
            Self::Away(_) => true,
            Self::Query(source) => is_repeated(source).is_some(),
            _ => false,
        }
    }

    /// What PostgreSQL says, told by what can be done about it.
    pub(super) fn of_postgres(error: sqlx::Error) -> Self {
        database::Error::of_postgres(error).into()
    }
}
