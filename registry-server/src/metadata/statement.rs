//! Statements: what goes into their places, and what is read out of the rows that come.

use futures_util::{StreamExt, TryStreamExt};
use sqlx::{SqlSafeStr, SqliteConnection, postgres::PgArguments, sqlite::SqliteArguments};
use tokio::time::timeout;

use super::{
    Error, Transaction,
    column::{Bind, Column},
    connection::{Connection, Places, Record},
    postgres::no_answer,
};

/// What is read out of a row.
pub(super) trait Row: Sized {
    fn of(row: &Record) -> Result<Self, Error>;
}

/// The first column.
impl<C: Column> Row for C {
    fn of(row: &Record) -> Result<Self, Error> {
        Self::at(row, 0)
    }
}

/// Rows by what tells them apart, each as it can be read: what cannot be is to be reported and
/// skipped, not to stop the rest.
pub(crate) type Rows<K, R> = Vec<(K, Result<R, Error>)>;

impl<K: Row, R: Row> Row for (K, Result<R, Error>) {
    fn of(row: &Record) -> Result<Self, Error> {
        Ok((K::of(row)?, R::of(row)))
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
macro_rules! row {
    ($row:ident { $($field:ident),* } $(, $part:ident)*) => {
        impl crate::metadata::statement::Row for $row {
            fn of(row: &crate::metadata::connection::Record) -> Result<Self, crate::metadata::Error> {
                Ok(Self {
                    $($field: crate::metadata::column::Column::at(row, stringify!($field))?,)*
                    $($part: crate::metadata::statement::Row::of(row)?,)*
                })
            }
        }
    };
}

pub(super) use row;

/// Runs the statement with its values on a connection of either engine: `work` is what is done with
/// both, and `record` makes a row of theirs one of ours.
macro_rules! on {
    ($on:expr, $statement:expr, $values:expr, |$query:ident, $connection:ident, $record:ident| $work:expr) => {
        match $on {
            Connection::Sqlite($connection) => {
                let $record = Record::Sqlite;
                let mut places = SqliteArguments::default();
                $values.bind(&mut Places::Sqlite(&mut places))?;
                let $query = sqlx::query_with($statement, places);
                $work
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
        }
    };
}

/// Makes statements on a connection.
pub(super) trait Statements {
    fn connection(&mut self) -> Connection<'_>;

    /// How many rows it changes.
    async fn run(&mut self, statement: impl SqlSafeStr, values: impl Bind) -> Result<u64, Error> {
        on!(self.connection(), statement, values, |query, connection, _record| {
            Ok(query.execute(connection).await?.rows_affected())
        })
    }

    /// All rows.
    async fn all<R: Row>(
        &mut self,
        statement: impl SqlSafeStr,
        values: impl Bind,
    ) -> Result<Vec<R>, Error> {
        on!(self.connection(), statement, values, |query, connection, record| {
            let rows = query.fetch(connection);
            rows.map(|row| R::of(&record(row?))).try_collect().await
        })
    }

    /// The row, if there is one.
    async fn optional<R: Row>(
        &mut self,
        statement: impl SqlSafeStr,
        values: impl Bind,
    ) -> Result<Option<R>, Error> {
        on!(self.connection(), statement, values, |query, connection, record| {
            let row = query.fetch_optional(connection).await?;
            row.map(|row| R::of(&record(row))).transpose()
        })
    }

    /// The row that there always is.
    async fn one<R: Row>(
        &mut self,
        statement: impl SqlSafeStr,
        values: impl Bind,
    ) -> Result<R, Error> {
        on!(self.connection(), statement, values, |query, connection, record| {
            R::of(&record(query.fetch_one(connection).await?))
        })
    }
}

impl Statements for SqliteConnection {
    fn connection(&mut self) -> Connection<'_> {
        Connection::Sqlite(self)
    }
}

impl Statements for Connection<'_> {
    fn connection(&mut self) -> Connection<'_> {
        match self {
            Self::Sqlite(connection) => Connection::Sqlite(connection),
            Self::Postgres(connection, time) => Connection::Postgres(connection, *time),
        }
    }
}

impl Statements for Transaction<'_> {
    fn connection(&mut self) -> Connection<'_> {
        self.connection.connection()
    }
}
