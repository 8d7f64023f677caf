//! Values as they stand in the database, read and written with care: what has a grammar is text
//! there, and sizes are unsigned everywhere but in SQL.

use berth_shared::{
    clock::UnixSeconds,
    digest::{Algorithm, Digest},
    name::RepositoryName,
    tag::Tag,
};

use super::{
    Error,
    connection::{Index, Places, Record},
};
use crate::storage::Location;

/// What is read out of a column.
pub(super) trait Column: Sized {
    fn at(row: &Record, index: impl Index) -> Result<Self, Error>;
}

/// What is put in the places of a statement: a value, or several in their order.
pub(super) trait Bind {
    fn bind(&self, places: &mut Places<'_>) -> Result<(), Error>;
}

/// What may be missing in its place, which PostgreSQL wants to know the type of all the same.
pub(super) trait Optional: Bind {
    fn bind_none(places: &mut Places<'_>) -> Result<(), Error>;
}

/// Values that are the same there.
macro_rules! same {
    ($($value:ty),*) => {$(
        impl $crate::metadata::column::Column for $value {
            fn at(
                row: &$crate::metadata::connection::Record,
                index: impl $crate::metadata::connection::Index,
            ) -> Result<Self, $crate::metadata::Error> {
                row.get(index)
            }
        }

        impl $crate::metadata::column::Bind for $value {
            fn bind(
                &self,
                places: &mut $crate::metadata::connection::Places<'_>,
            ) -> Result<(), $crate::metadata::Error> {
                places.add(self)
            }
        }

        impl $crate::metadata::column::Optional for $value {
            fn bind_none(
                places: &mut $crate::metadata::connection::Places<'_>,
            ) -> Result<(), $crate::metadata::Error> {
                places.add(None::<$value>)
            }
        }
    )*};
}

same!(bool, i64, UnixSeconds, String, Vec<u8>);

/// Values that are text there, and how they say it.
macro_rules! text {
    ($($value:ident :: $text:ident),*) => {$(
        impl $crate::metadata::column::Column for $value {
            fn at(
                row: &$crate::metadata::connection::Record,
                index: impl $crate::metadata::connection::Index,
            ) -> Result<Self, $crate::metadata::Error> {
                let text: &str = row.get(index)?;
                text.parse().map_err(|_| $crate::metadata::Error::Corrupt(text.to_owned()))
            }
        }

        impl $crate::metadata::column::Bind for $value {
            fn bind(
                &self,
                places: &mut $crate::metadata::connection::Places<'_>,
            ) -> Result<(), $crate::metadata::Error> {
                $crate::metadata::column::Bind::bind(self.$text(), places)
            }
        }

        impl $crate::metadata::column::Optional for $value {
            fn bind_none(
                places: &mut $crate::metadata::connection::Places<'_>,
            ) -> Result<(), $crate::metadata::Error> {
                <str as $crate::metadata::column::Optional>::bind_none(places)
            }
        }
    )*};
}

text!(RepositoryName::as_str, Digest::as_str, Tag::as_str, Location::as_str, Algorithm::name);

pub(super) use {same, text};

/// Numbers that are not negative: SQL has none of their kind.
macro_rules! unsigned {
    ($($value:ty),*) => {$(
        impl Column for $value {
            fn at(row: &Record, index: impl Index) -> Result<Self, Error> {
                let number: i64 = row.get(index)?;
                Self::try_from(number).map_err(|_| Error::Corrupt(number.to_string()))
            }
        }

        impl Bind for $value {
            fn bind(&self, places: &mut Places<'_>) -> Result<(), Error> {
                let number = i64::try_from(*self);
                places.add(number.map_err(|_| Error::Corrupt(self.to_string()))?)
            }
        }
    )*};
}

unsigned!(u32, u64);

impl<T: Column> Column for Option<T> {
    fn at(row: &Record, index: impl Index) -> Result<Self, Error> {
        let is_null = row.is_null(index)?;
        (!is_null).then(|| T::at(row, index)).transpose()
    }
}

impl<T: Optional> Bind for Option<T> {
    fn bind(&self, places: &mut Places<'_>) -> Result<(), Error> {
        match self {
            Some(value) => value.bind(places),
            None => T::bind_none(places),
        }
    }
}

impl Bind for str {
    fn bind(&self, places: &mut Places<'_>) -> Result<(), Error> {
        places.add(self)
    }
}

impl Optional for str {
    fn bind_none(places: &mut Places<'_>) -> Result<(), Error> {
        places.add(None::<&Self>)
    }
}

impl Bind for [u8] {
    fn bind(&self, places: &mut Places<'_>) -> Result<(), Error> {
        places.add(self)
    }
}

impl<T: Bind + ?Sized> Bind for &T {
    fn bind(&self, places: &mut Places<'_>) -> Result<(), Error> {
        (*self).bind(places)
    }
}

impl<T: Optional + ?Sized> Optional for &T {
    fn bind_none(places: &mut Places<'_>) -> Result<(), Error> {
        T::bind_none(places)
    }
}
