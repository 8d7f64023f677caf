//! Statements: what goes into their places, and what is read out of the rows that come.

use futures_util::{StreamExt, TryStreamExt};
use sqlx::{
    SqlSafeStr, Sqlite, SqliteConnection,
    query::Query,
    sqlite::{SqliteArguments, SqliteRow},
};

use super::{
    Error, Transaction,
    column::{Bind, Column},
};

/// What is read out of a row.
pub(super) trait Row: Sized {
    fn of(row: &SqliteRow) -> Result<Self, Error>;
}

/// The first column.
impl<C: Column> Row for C {
    fn of(row: &SqliteRow) -> Result<Self, Error> {
        Self::at(row, 0)
    }
}

/// Rows by what tells them apart, each as it can be read: what cannot be is to be reported and
/// skipped, not to stop the rest.
pub(crate) type Rows<K, R> = Vec<(K, Result<R, Error>)>;

impl<K: Row, R: Row> Row for (K, Result<R, Error>) {
    fn of(row: &SqliteRow) -> Result<Self, Error> {
        Ok((K::of(row)?, R::of(row)))
    }
}

/// What has several columns, and goes into several places.
macro_rules! several {
    ($($value:ident $number:tt),*) => {
        impl<$($value: Column),*> Row for ($($value,)*) {
            fn of(row: &SqliteRow) -> Result<Self, Error> {
                Ok(($($value::at(row, $number)?,)*))
            }
        }

        impl<$($value: Bind),*> Bind for ($($value,)*) {
            fn bind(&self, places: &mut SqliteArguments) -> Result<(), Error> {
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
    fn bind(&self, _: &mut SqliteArguments) -> Result<(), Error> {
        Ok(())
    }
}

/// Reads each field out of the column of its name, and each of the parts out of the whole row.
macro_rules! row {
    ($row:ident { $($field:ident),* } $(, $part:ident)*) => {
        impl crate::metadata::statement::Row for $row {
            fn of(row: &sqlx::sqlite::SqliteRow) -> Result<Self, crate::metadata::Error> {
                Ok(Self {
                    $($field: crate::metadata::column::Column::at(row, stringify!($field))?,)*
                    $($part: crate::metadata::statement::Row::of(row)?,)*
                })
            }
        }
    };
}

pub(super) use row;

/// Makes statements on a connection.
pub(super) trait Statements {
    fn connection(&mut self) -> &mut SqliteConnection;

    /// How many rows it changes.
    async fn run(&mut self, statement: impl SqlSafeStr, values: impl Bind) -> Result<u64, Error> {
        let query = query(statement, values)?;
        Ok(query.execute(self.connection()).await?.rows_affected())
    }

    /// All rows.
    async fn all<R: Row>(
        &mut self,
        statement: impl SqlSafeStr,
        values: impl Bind,
    ) -> Result<Vec<R>, Error> {
        let rows = query(statement, values)?.fetch(self.connection());
        rows.map(|row| R::of(&row?)).try_collect().await
    }

    /// The row, if there is one.
    async fn optional<R: Row>(
        &mut self,
        statement: impl SqlSafeStr,
        values: impl Bind,
    ) -> Result<Option<R>, Error> {
        let row = query(statement, values)?.fetch_optional(self.connection()).await?;
        row.as_ref().map(R::of).transpose()
    }

    /// The row that there always is.
    async fn one<R: Row>(
        &mut self,
        statement: impl SqlSafeStr,
        values: impl Bind,
    ) -> Result<R, Error> {
        R::of(&query(statement, values)?.fetch_one(self.connection()).await?)
    }
}

impl Statements for SqliteConnection {
    fn connection(&mut self) -> &mut SqliteConnection {
        self
    }
}

impl Statements for Transaction<'_> {
    fn connection(&mut self) -> &mut SqliteConnection {
        self.connection
    }
}

/// The statement with its values.
pub(super) fn query<'q>(
    statement: impl SqlSafeStr,
    values: impl Bind,
) -> Result<Query<'q, Sqlite, SqliteArguments>, Error> {
    let mut places = SqliteArguments::default();
    values.bind(&mut places)?;
    Ok(sqlx::query_with(statement, places))
}
