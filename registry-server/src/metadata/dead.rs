//! Objects that no row owns any more. Deleting is a row first: whatever lets an object go writes it
//! here in the same transaction, so that it is deleted in the end, whoever dies before.

use berth_shared::{clock::UnixSeconds, database::Statements};

use super::{Database, Error, Rows, Transaction, list::List};
use crate::storage::{Dead, Location};

/// How long whoever deletes objects may take for those that it has read of, in seconds.
const SOON_SECS: i64 = 60;

/// A place in the list of them: when one may be deleted, and where it lies, as it stands there.
pub(crate) type Place = (UnixSeconds, String);

impl Database {
    /// Up to `limit` of those behind `last` that may be deleted since `now`: each by its place in the
    /// list, and as it can be read. None that a row owns, whatever is written here.
    pub(crate) async fn dead_objects(
        &self,
        now: UnixSeconds,
        last: &Place,
        limit: u32,
    ) -> Result<Rows<Place, Dead>, Error> {
        let statement = "SELECT d.due, d.location, d.size AS received, d.draft AS state
             FROM dead_objects d
             WHERE (d.due, d.location) > ($1, $2) AND d.due <= $3
             AND NOT EXISTS (SELECT 1 FROM blobs b WHERE b.location = d.location)
             AND NOT EXISTS (SELECT 1 FROM uploads u WHERE u.location = d.location)
             ORDER BY d.due, d.location LIMIT $4";
        self.reader().await?.all(statement, (last.0, &last.1, now, limit)).await
    }

    /// Records objects that are about to be there, and that no row may come to own before they may be
    /// deleted.
    pub(crate) async fn bury_all(&self, dead: Vec<Dead>, due: UnixSeconds) -> Result<(), Error> {
        self.write(dead, move |tx, dead| {
            Box::pin(async move {
                for dead in dead {
                    tx.bury(dead, due).await?;
                }
                Ok(())
            })
        })
        .await
    }

    /// Forgets objects that are deleted.
    pub(crate) async fn forget_dead(&self, deleted: Vec<Location>) -> Result<(), Error> {
        self.write(deleted, |tx, deleted| {
            Box::pin(async move {
                let statement = "DELETE FROM dead_objects WHERE location IN
                     (SELECT value ->> 0 FROM json_each($1))";
                let deleted = List::of(deleted.iter().map(|location| [location.as_str()]));
                tx.run(statement, deleted).await.map(drop)
            })
        })
        .await
    }
}

impl Transaction<'_> {
    /// Lets objects last that were recorded before they were put. None may be deleted by now, or soon.
    pub(super) async fn dig_up(
        &mut self,
        buried: &[Location],
        now: UnixSeconds,
    ) -> Result<(), Error> {
        if buried.is_empty() {
            return Ok(());
        }
        let statement = "DELETE FROM dead_objects WHERE due > $2 AND location IN
             (SELECT value ->> 0 FROM json_each($1))";
        let listed = List::of(buried.iter().map(|location| [location.as_str()]));
        let found = self.run(statement, (listed, now + SOON_SECS)).await?;
        if found == buried.len() as u64 {
            return Ok(());
        }
        Err(Error::Unfit(
            "it took longer than objects are kept that have no rows: try again".into(),
        ))
    }

    /// Records that no row owns the object any more, and that it may be deleted since `due`.
    pub(super) async fn bury(&mut self, dead: &Dead, due: UnixSeconds) -> Result<(), Error> {
        let Dead { location, received, state } = dead;
        let statement = "INSERT INTO dead_objects (location, size, draft, due)
             VALUES ($1, $2, $3, $4) ON CONFLICT (location) DO NOTHING";
        self.run(statement, (location, received, state, due)).await.map(drop)
    }
}
