//! Values as they stand in the database, read and written with care: what has a grammar is text
//! there, and sizes are unsigned everywhere but in SQL.

use berth_shared::{
    clock::UnixSeconds,
    digest::{Algorithm, Digest},
    name::RepositoryName,
    tag::Tag,
};
use sqlx::{
    Arguments, ColumnIndex, Row, ValueRef,
    sqlite::{SqliteArguments, SqliteRow},
};

use super::Error;
use crate::storage::Location;

/// What is read out of a column.
pub(super) trait Column: Sized {
    fn at(row: &SqliteRow, index: impl ColumnIndex<SqliteRow>) -> Result<Self, Error>;
}

/// What is put in the places of a statement: a value, or several in their order.
pub(super) trait Bind {
    fn bind(&self, places: &mut SqliteArguments) -> Result<(), Error>;
}

/// Values that are the same there.
macro_rules! same {
    ($($value:ty),*) => {$(
        impl $crate::metadata::column::Column for $value {
            fn at(
                row: &sqlx::sqlite::SqliteRow,
                index: impl sqlx::ColumnIndex<sqlx::sqlite::SqliteRow>,
            ) -> Result<Self, $crate::metadata::Error> {
                Ok(sqlx::Row::try_get(row, index)?)
            }
        }

        impl $crate::metadata::column::Bind for $value {
            fn bind(
                &self,
                places: &mut sqlx::sqlite::SqliteArguments,
            ) -> Result<(), $crate::metadata::Error> {
                Ok(sqlx::Arguments::add(places, self).map_err(sqlx::Error::Encode)?)
            }
        }
    )*};
}

same!(bool, u32, i64, UnixSeconds, String, Vec<u8>);

/// Values that are text there, and how they say it.
macro_rules! text {
    ($($value:ident :: $text:ident),*) => {$(
        impl $crate::metadata::column::Column for $value {
            fn at(
                row: &sqlx::sqlite::SqliteRow,
                index: impl sqlx::ColumnIndex<sqlx::sqlite::SqliteRow>,
            ) -> Result<Self, $crate::metadata::Error> {
                let text: &str = sqlx::Row::try_get(row, index)?;
                text.parse().map_err(|_| $crate::metadata::Error::Corrupt(text.to_owned()))
            }
        }

        impl $crate::metadata::column::Bind for $value {
            fn bind(
                &self,
                places: &mut sqlx::sqlite::SqliteArguments,
            ) -> Result<(), $crate::metadata::Error> {
                $crate::metadata::column::Bind::bind(self.$text(), places)
            }
        }
    )*};
}

text!(RepositoryName::as_str, Digest::as_str, Tag::as_str, Location::as_str, Algorithm::name);

pub(super) use {same, text};

impl Column for u64 {
    fn at(row: &SqliteRow, index: impl ColumnIndex<SqliteRow>) -> Result<Self, Error> {
        let number: i64 = row.try_get(index)?;
        Self::try_from(number).map_err(|_| Error::Corrupt(number.to_string()))
    }
}

impl Bind for u64 {
    fn bind(&self, places: &mut SqliteArguments) -> Result<(), Error> {
        i64::try_from(*self).map_err(|_| Error::Corrupt(self.to_string()))?.bind(places)
    }
}

impl<T: Column> Column for Option<T> {
    fn at(row: &SqliteRow, index: impl ColumnIndex<SqliteRow>) -> Result<Self, Error> {
        let index = index.index(row)?;
        let is_null = row.try_get_raw(index)?.is_null();
        (!is_null).then(|| T::at(row, index)).transpose()
    }
}

impl<T: Bind> Bind for Option<T> {
    fn bind(&self, places: &mut SqliteArguments) -> Result<(), Error> {
        match self {
            Some(value) => value.bind(places),
            None => Ok(places.add(None::<i64>).map_err(sqlx::Error::Encode)?),
        }
    }
}

impl Bind for str {
    fn bind(&self, places: &mut SqliteArguments) -> Result<(), Error> {
        Ok(places.add(self).map_err(sqlx::Error::Encode)?)
    }
}

impl Bind for [u8] {
    fn bind(&self, places: &mut SqliteArguments) -> Result<(), Error> {
        Ok(places.add(self).map_err(sqlx::Error::Encode)?)
    }
}

impl<T: Bind + ?Sized> Bind for &T {
    fn bind(&self, places: &mut SqliteArguments) -> Result<(), Error> {
        (*self).bind(places)
    }
}
