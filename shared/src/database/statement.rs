//! Statements: what goes into their places, and what is read out of the rows that come.

use futures_util::{StreamExt, TryStreamExt};
use sqlx::{SqlSafeStr, SqliteConnection, postgres::PgArguments, sqlite::SqliteArguments};
use tokio::time::timeout;

use super::{Bind, Column, Connection, Error, Places, Record, state::no_answer};

/// What is read out of a row.
pub trait Row: Sized {
    /// Reads it.
    ///
    /// # Errors
    /// When something else lies there.
    fn of(row: &Record) -> Result<Self, Error>;
}

/// The first column.
impl<C: Column> Row for C {
    fn of(row: &Record) -> Result<Self, Error> {
        Self::at(row, 0)
    }
}

/// A row by what tells it from others, as it can be read: what cannot be is to be reported and skipped, not
/// to stop the rest.
impl<K: Row, R: Row, E: From<Error>> Row for (K, Result<R, E>) {
    fn of(row: &Record) -> Result<Self, Error> {
        Ok((K::of(row)?, R::of(row).map_err(E::from)))
    }
}

/// What has several columns, and goes into several places.
macro_rules! several {
    ($($value:ident $number:tt),*) => {
        impl<$($value: Column),*> Row for ($($value,)*) {
            fn of(row: &Record) -> Result<Self, Error> {
                Ok(($($value::at(row, $number)?,)*))
            }
        }

        impl<$($value: Bind),*> Bind for ($($value,)*) {
            fn bind(&self, places: &mut Places<'_>) -> Result<(), Error> {
                $(self.$number.bind(places)?;)*
                Ok(())
            }
        }
    };
}

several!(A 0, B 1);
several!(A 0, B 1, C 2);
several!(A 0, B 1, C 2, D 3);
several!(A 0, B 1, C 2, D 3, E 4);
several!(A 0, B 1, C 2, D 3, E 4, F 5);
several!(A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8);
several!(A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8, J 9);

impl Bind for () {
    fn bind(&self, _: &mut Places<'_>) -> Result<(), Error> {
        Ok(())
    }
}

/// Reads each field out of the column of its name, and each of the parts out of the whole row.
#[macro_export]
macro_rules! row {
    ($row:ident { $($field:ident),* } $(, $part:ident)*) => {
        impl $crate::database::Row for $row {
            fn of(row: &$crate::database::Record) -> Result<Self, $crate::database::Error> {
                Ok(Self {
                    $($field: $crate::database::Column::at(row, stringify!($field))?,)*
                    $($part: $crate::database::Row::of(row)?,)*
                })
            }
        }
    };
}

pub use row;

/// Runs the statement with its values on a connection of either engine: `work` is what is done with
/// both, and `record` makes a row of theirs one of ours.
macro_rules! on {
    ($on:expr, $statement:expr, $values:expr, |$query:ident, $connection:ident, $record:ident| $work:expr) => {{
        let done: Result<_, Error> = match $on {
            Connection::Sqlite($connection) => {
                let $record = Record::Sqlite;
                let mut places = SqliteArguments::default();
                $values.bind(&mut Places::Sqlite(&mut places))?;
                let $query = sqlx::query_with($statement, places);
                async {
                    let done: Result<_, Error> = $work;
                    done
                }
                .await
            }
            Connection::Postgres($connection, answer_time) => {
                let $record = Record::Postgres;
                let mut places = PgArguments::default();
                $values.bind(&mut Places::Postgres(&mut places))?;
                let $query = sqlx::query_with($statement, places);
                let asked = async {
                    let done: Result<_, Error> = $work;
                    done
                };
                let answer = timeout(answer_time, asked).await;
                answer.unwrap_or_else(|_| Err(no_answer().into())).map_err(Error::of_postgres)
            }
        };
        Ok(done?)
    }};
}

/// Makes statements on a connection.
#[expect(async_fn_in_trait, reason = "whoever makes statements is known where they are made")]
pub trait Statements {
    /// What a statement fails with.
    type Error: From<Error>;

    /// The connection.
    fn connection(&mut self) -> Connection<'_>;

    /// How many rows it changes.
    ///
    /// # Errors
    /// When the database does not do it, or other rows come than are read.
    async fn run(
        &mut self,
        statement: impl SqlSafeStr,
        values: impl Bind,
    ) -> Result<u64, Self::Error> {
        on!(self.connection(), statement, values, |query, connection, _record| {
            Ok(query.execute(connection).await?.rows_affected())
        })
    }

    /// All rows.
    ///
    /// # Errors
    /// When the database does not do it, or other rows come than are read.
    async fn all<R: Row>(
        &mut self,
        statement: impl SqlSafeStr,
        values: impl Bind,
    ) -> Result<Vec<R>, Self::Error> {
        on!(self.connection(), statement, values, |query, connection, record| {
            let rows = query.fetch(connection);
            rows.map(|row| R::of(&record(row?))).try_collect().await
        })
    }

    /// The row, if there is one.
    ///
    /// # Errors
    /// When the database does not do it, or other rows come than are read.
    async fn optional<R: Row>(
        &mut self,
        statement: impl SqlSafeStr,
        values: impl Bind,
    ) -> Result<Option<R>, Self::Error> {
        on!(self.connection(), statement, values, |query, connection, record| {
            let row = query.fetch_optional(connection).await?;
            row.map(|row| R::of(&record(row))).transpose()
        })
    }

    /// The row that there always is.
    ///
    /// # Errors
    /// When the database does not do it, or other rows come than are read.
    async fn one<R: Row>(
        &mut self,
        statement: impl SqlSafeStr,
        values: impl Bind,
    ) -> Result<R, Self::Error> {
        on!(self.connection(), statement, values, |query, connection, record| {
            R::of(&record(query.fetch_one(connection).await?))
        })
    }
}

impl Statements for SqliteConnection {
    type Error = Error;

    fn connection(&mut self) -> Connection<'_> {
        Connection::Sqlite(self)
    }
}

impl Statements for Connection<'_> {
    type Error = Error;

    fn connection(&mut self) -> Connection<'_> {
        match self {
            Self::Sqlite(connection) => Connection::Sqlite(connection),
            Self::Postgres(connection, time) => Connection::Postgres(connection, *time),
        }
    }
}
