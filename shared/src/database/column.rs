//! Values as they stand in the database, read and written with care: what has a grammar is text
//! there, and sizes are unsigned everywhere but in SQL.

use std::net::IpAddr;

use super::{Error, Index, Places, Record};
use crate::{
    action::Actions,
    clock::UnixSeconds,
    digest::{Algorithm, Digest},
    name::RepositoryName,
    pattern::Pattern,
    rights::Effect,
    subject::{Grantee, GroupName, RobotName, UserName},
    tag::Tag,
};

/// What is read out of a column.
pub trait Column: Sized {
    /// Reads it.
    ///
    /// # Errors
    /// When something else lies there.
    fn at(row: &Record, index: impl Index) -> Result<Self, Error>;
}

/// What is put in the places of a statement: a value, or several in their order.
pub trait Bind {
    /// Puts it there.
    ///
    /// # Errors
    /// When it has no form there.
    fn bind(&self, places: &mut Places<'_>) -> Result<(), Error>;
}

/// What may be missing in its place, which PostgreSQL wants to know the type of all the same.
pub trait Optional: Bind {
    /// Leaves its place empty.
    ///
    /// # Errors
    /// As [`Bind::bind`].
    fn bind_none(places: &mut Places<'_>) -> Result<(), Error>;
}

/// Reads and writes values that are the same there.
#[macro_export]
macro_rules! same {
    ($($value:ty),*) => {$(
        impl $crate::database::Column for $value {
            fn at(
                row: &$crate::database::Record,
                index: impl $crate::database::Index,
            ) -> Result<Self, $crate::database::Error> {
                row.get(index)
            }
        }

        impl $crate::database::Bind for $value {
            fn bind(
                &self,
                places: &mut $crate::database::Places<'_>,
            ) -> Result<(), $crate::database::Error> {
                places.add(self)
            }
        }

        impl $crate::database::Optional for $value {
            fn bind_none(
                places: &mut $crate::database::Places<'_>,
            ) -> Result<(), $crate::database::Error> {
                places.add(None::<$value>)
            }
        }
    )*};
}

same!(bool, i64, UnixSeconds, String, Vec<u8>);

/// Reads and writes values that are text there, and how they say it.
#[macro_export]
macro_rules! text {
    ($($value:ident :: $text:ident),*) => {$(
        impl $crate::database::Column for $value {
            fn at(
                row: &$crate::database::Record,
                index: impl $crate::database::Index,
            ) -> Result<Self, $crate::database::Error> {
                let text: &str = row.get(index)?;
                text.parse().map_err(|_| $crate::database::Error::Corrupt(text.to_owned()))
            }
        }

        impl $crate::database::Bind for $value {
            fn bind(
                &self,
                places: &mut $crate::database::Places<'_>,
            ) -> Result<(), $crate::database::Error> {
                $crate::database::Bind::bind(&self.$text(), places)
            }
        }

        impl $crate::database::Optional for $value {
            fn bind_none(
                places: &mut $crate::database::Places<'_>,
            ) -> Result<(), $crate::database::Error> {
                <str as $crate::database::Optional>::bind_none(places)
            }
        }
    )*};
}

text!(RepositoryName::as_str, Digest::as_str, Tag::as_str, Algorithm::name);
text!(UserName::as_str, RobotName::as_str, GroupName::as_str, Grantee::to_string);
text!(Pattern::as_str, Actions::to_string, Effect::word, IpAddr::to_string);

pub use {same, text};

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
