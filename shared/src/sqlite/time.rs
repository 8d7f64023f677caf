//! A time as a database keeps it: a number of seconds.

use sqlx::{Database, Decode, Encode, Type, encode::IsNull, error::BoxDynError};

use crate::clock::UnixSeconds;

impl<DB: Database> Type<DB> for UnixSeconds
where
    i64: Type<DB>,
{
    fn type_info() -> DB::TypeInfo {
        <i64 as Type<DB>>::type_info()
    }

    fn compatible(other: &DB::TypeInfo) -> bool {
        <i64 as Type<DB>>::compatible(other)
    }
}

impl<'q, DB: Database> Encode<'q, DB> for UnixSeconds
where
    i64: Encode<'q, DB>,
{
    fn encode_by_ref(&self, place: &mut DB::ArgumentBuffer) -> Result<IsNull, BoxDynError> {
        self.get().encode_by_ref(place)
    }
}

impl<'r, DB: Database> Decode<'r, DB> for UnixSeconds
where
    i64: Decode<'r, DB>,
{
    fn decode(value: DB::ValueRef<'r>) -> Result<Self, BoxDynError> {
        i64::decode(value).map(Self::new)
    }
}
