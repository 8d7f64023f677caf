//! Which registry a database is of, where its objects are not simply beside it.

use berth_shared::database::{Statements, row};

use super::{Database, Error};

/// Which registry it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin {
    /// Random, and another one for each database.
    pub(crate) identity: String,
    /// Whether no object lies anywhere yet.
    pub(crate) is_empty: bool,
    /// Whether its objects are in a bucket that says the same.
    pub(crate) at_store: bool,
}

row!(Origin { identity, is_empty, at_store });

// Each of the looks ends at the first row.
const ORIGIN: &str = "SELECT identity,
     NOT EXISTS (SELECT 1 FROM blobs WHERE digest > '')
         AND NOT EXISTS (SELECT 1 FROM uploads WHERE id > '')
         AND NOT EXISTS (SELECT 1 FROM dead_objects WHERE location > '') AS is_empty,
     store IS NOT NULL AS at_store FROM state WHERE id = 1";

impl Database {
    /// Which registry the rows are of, if they say so: a file beside its objects does not.
    pub(crate) async fn origin(&self) -> Result<Option<Origin>, Error> {
        self.reader().await?.optional(ORIGIN, ()).await
    }

    /// The same, where they are to say so from now on: as `identity`, unless they say so already.
    pub(crate) async fn name_origin(&self, identity: String) -> Result<Origin, Error> {
        self.write(identity, |tx, identity| {
            Box::pin(async move {
                let statement =
                    "INSERT INTO state (id, identity) VALUES (1, $1) ON CONFLICT (id) DO NOTHING";
                tx.run(statement, identity).await?;
                tx.one(ORIGIN, ()).await
            })
        })
        .await
    }

    /// Records that the objects are in the bucket that says the same, or are not any more.
    pub(crate) async fn put_at_store(&self, at_store: bool) -> Result<(), Error> {
        self.write(at_store, |tx, at_store| {
            Box::pin(async move {
                let store = at_store.then(|| "s3".to_owned());
                tx.run("UPDATE state SET store = $1 WHERE id = 1", store).await.map(drop)
            })
        })
        .await
    }
}
