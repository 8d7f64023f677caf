//! A time as a file of SQLite keeps it: a number of seconds.

use sqlx::{
    Decode, Encode, Sqlite, Type,
    encode::IsNull,
    error::BoxDynError,
    sqlite::{SqliteArgumentsBuffer, SqliteTypeInfo, SqliteValueRef},
};

use crate::clock::UnixSeconds;

impl Type<Sqlite> for UnixSeconds {
    fn type_info() -> SqliteTypeInfo {
        <i64 as Type<Sqlite>>::type_info()
    }

    fn compatible(other: &SqliteTypeInfo) -> bool {
        <i64 as Type<Sqlite>>::compatible(other)
    }
}

impl Encode<'_, Sqlite> for UnixSeconds {
    fn encode_by_ref(&self, place: &mut SqliteArgumentsBuffer) -> Result<IsNull, BoxDynError> {
        self.get().encode(place)
    }
}

impl Decode<'_, Sqlite> for UnixSeconds {
    fn decode(value: SqliteValueRef<'_>) -> Result<Self, BoxDynError> {
        i64::decode(value).map(Self::new)
    }
}
