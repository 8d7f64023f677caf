//! Leases: work that one of several servers does at a time, what they keep from it, and who they are. They
//! save work; nothing that is acknowledged rests on one.

use berth_shared::{clock::UnixSeconds, database::Statements};

use super::{Database, Engine, Error, postgres::IS_ALONE};

/// What several may have at once, each under a name of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Who has one keeps blobs' objects from being deleted.
    Hold,
    /// Who has one is a process that works on the registry.
    Presence,
}

impl Kind {
    /// What their names begin with, and what is behind all names that do.
    fn range(self) -> (&'static str, &'static str) {
        match self {
            Self::Hold => ("hold/", "hold0"),
            Self::Presence => ("server/", "server0"),
        }
    }

    /// The name of the one that `holder` has.
    pub(crate) fn name(self, holder: String) -> Name {
        Name { of: format!("{}{holder}", self.range().0), holder }
    }
}

/// How a lease is called, and who has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Name {
    pub(crate) of: String,
    /// Random, and another one for each who takes it.
    pub(crate) holder: String,
}

impl Database {
    /// Takes a lease until then, unless somebody else has it or its work came to its end after `due`. Gives
    /// when that last was: `now`, where it is the first time.
    pub(crate) async fn take_lease(
        &self,
        Name { of, holder }: &Name,
        now: UnixSeconds,
        until: UnixSeconds,
        due: UnixSeconds,
    ) -> Result<Option<UnixSeconds>, Error> {
        self.write_one((of.clone(), holder.clone()), move |tx, (of, holder)| {
            Box::pin(async move {
                let statement = "INSERT INTO leases (name, holder, until, done)
                     VALUES ($1, $2, $3, $4)
                     ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until = excluded.until
                     WHERE leases.until < $4 AND leases.done <= $5 RETURNING done";
                tx.optional(statement, (of, holder, until, now, due)).await
            })
        })
        .await
    }

    /// Keeps a lease until then. `false` when it had ended by `now`, or somebody else has it.
    pub(crate) async fn keep_lease(
        &self,
        Name { of, holder }: &Name,
        now: UnixSeconds,
        until: UnixSeconds,
    ) -> Result<bool, Error> {
        self.write_one((of.clone(), holder.clone()), move |tx, (of, holder)| {
            Box::pin(async move {
                let statement = "UPDATE leases SET until = $3
                     WHERE name = $1 AND holder = $2 AND until >= $4";
                Ok(tx.run(statement, (of, holder, until, now)).await? > 0)
            })
        })
        .await
    }

    /// Gives a lease back, whose work came to its end then, if it did.
    pub(crate) async fn end_lease(
        &self,
        Name { of, holder }: &Name,
        done: Option<UnixSeconds>,
    ) -> Result<(), Error> {
        self.write_one((of.clone(), holder.clone()), move |tx, (of, holder)| {
            Box::pin(async move {
                let statement = "UPDATE leases SET until = 0, done = COALESCE($3, done)
                     WHERE name = $1 AND holder = $2";
                tx.run(statement, (of, holder, done)).await.map(drop)
            })
        })
        .await
    }

    /// Forgets those of the kind that have ended by then.
    pub(crate) async fn forget_leases(&self, kind: Kind, now: UnixSeconds) -> Result<(), Error> {
        let (first, end) = kind.range();
        self.write_one((), move |tx, ()| {
            Box::pin(async move {
                let statement = "DELETE FROM leases WHERE name >= $1 AND name < $2 AND until < $3";
                tx.run(statement, (first, end, now)).await.map(drop)
            })
        })
        .await
    }

    /// Whether somebody has one of the kind.
    pub(crate) async fn has_lease(&self, kind: Kind, now: UnixSeconds) -> Result<bool, Error> {
        let (first, end) = kind.range();
        let statement = "SELECT EXISTS (SELECT 1 FROM leases
             WHERE name >= $1 AND name < $2 AND until >= $3)";
        self.reader().await?.one(statement, (first, end, now)).await
    }

    /// Whether a process works on the registry that shares it with no other: one that does is not told here.
    pub(crate) async fn is_anybodys_alone(&self) -> Result<bool, Error> {
        match self.engine {
            Engine::Sqlite { .. } => Ok(false),
            Engine::Postgres(_) => self.reader().await?.one(IS_ALONE, ()).await,
        }
    }

    /// Until when somebody has it.
    #[cfg(test)]
    pub(crate) async fn lease_until(&self, name: &str) -> Result<UnixSeconds, Error> {
        self.reader().await?.one("SELECT until FROM leases WHERE name = $1", name).await
    }
}
