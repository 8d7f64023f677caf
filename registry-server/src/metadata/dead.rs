//! Objects that no row owns any more. Deleting is a row first: whatever lets an object go writes it
//! here in the same transaction, so that it is deleted in the end, whoever dies before.

use berth_shared::clock::UnixSeconds;

use super::{
    Database, Error, Transaction,
    column::{parse, signed, unsigned},
    list,
};
use crate::storage::{Dead, Location};

/// A place in the list of them: when one may be deleted, and where it lies, as it stands there.
pub(crate) type Place = (UnixSeconds, String);

impl Database {
    /// Up to `limit` of those behind `last` that may be deleted since `now`: each by its place in the
    /// list, and as it can be read.
    pub(crate) async fn dead_objects(
        &self,
        now: UnixSeconds,
        last: &Place,
        limit: u32,
    ) -> Result<Vec<(Place, Result<Dead, Error>)>, Error> {
        let rows: Vec<(UnixSeconds, String, i64, Option<String>)> = sqlx::query_as(
            "SELECT due, location, size, draft FROM dead_objects
             WHERE (due, location) > ($1, $2) AND due <= $3 ORDER BY due, location LIMIT $4",
        )
        .bind(last.0)
        .bind(&last.1)
        .bind(now)
        .bind(i64::from(limit))
        .fetch_all(&mut *self.reader().await?)
        .await?;
        let dead = |(due, location, size, draft): (_, String, i64, _)| {
            let read = || Ok(Dead { location: parse(&location)?, size: unsigned(size)?, draft });
            let read = read();
            ((due, location), read)
        };
        Ok(rows.into_iter().map(dead).collect())
    }

    /// Forgets objects that are deleted.
    pub(crate) async fn forget_dead(&self, deleted: Vec<Location>) -> Result<(), Error> {
        self.write(deleted, |tx, deleted| Box::pin(tx.forget_dead(deleted))).await
    }
}

impl Transaction<'_> {
    /// Records that no row owns the objects from `now` on, and that they may be deleted.
    pub(super) async fn bury(&mut self, dead: &[Dead], now: UnixSeconds) -> Result<(), Error> {
        for Dead { location, size, draft } in dead {
            sqlx::query(
                "INSERT INTO dead_objects (location, size, draft, due) VALUES ($1, $2, $3, $4)
                 ON CONFLICT (location) DO NOTHING",
            )
            .bind(location.as_str())
            .bind(signed(*size)?)
            .bind(draft)
            .bind(now)
            .execute(&mut *self.connection)
            .await?;
        }
        Ok(())
    }

    async fn forget_dead(&mut self, deleted: &[Location]) -> Result<(), Error> {
        for part in list::parts(deleted) {
            let places = list::places(1, part.len());
            let statement = format!("DELETE FROM dead_objects WHERE location IN ({places})");
            let mut query = sqlx::query(sqlx::AssertSqlSafe(statement));
            for location in part {
                query = query.bind(location.as_str());
            }
            query.execute(&mut *self.connection).await?;
        }
        Ok(())
    }

    /// Forgets all of them: in a copy, which has none of those objects.
    pub(super) async fn forget_all_dead(&mut self) -> Result<(), Error> {
        sqlx::query("DELETE FROM dead_objects").execute(&mut *self.connection).await?;
        Ok(())
    }
}
