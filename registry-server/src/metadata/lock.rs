//! Locks of rows. SQLite has one writer, and what it has seen holds until it commits. On PostgreSQL others
//! write meanwhile: whatever looks at something that must still be so at its commit holds it first, and
//! looks in the *next* statement, which has a newer snapshot.
//!
//! Locks are taken in this order, and within a table by key: `uploads`, `repositories`, `manifests`,
//! `blobs`, `repository_blobs`. Collection comes from the other side and skips what is locked. Whoever
//! meets another in a circle is told so, and repeats.

use berth_shared::database::{Bind, Connection, Statements};
use sqlx::AssertSqlSafe;

use super::{Error, Transaction};

/// How rows are held until the transaction ends.
#[derive(Debug, Clone, Copy)]
pub(super) enum Lock {
    /// They stay; others may touch them, and name them too.
    KeyShare,
    /// They stay, and nobody else changes them.
    NoKeyUpdate,
    /// Nobody else may name them, and they may go.
    Update,
    /// The same, and those that somebody else holds are not found.
    UpdateSkipLocked,
}

impl Lock {
    fn words(self) -> &'static str {
        match self {
            Self::KeyShare => "FOR KEY SHARE",
            Self::NoKeyUpdate => "FOR NO KEY UPDATE",
            Self::Update => "FOR UPDATE",
            Self::UpdateSkipLocked => "FOR UPDATE SKIP LOCKED",
        }
    }
}

impl Transaction<'_> {
    /// The statement, which holds the rows that it reads.
    pub(super) fn locking(&self, statement: &str, lock: Lock) -> AssertSqlSafe<String> {
        AssertSqlSafe(match self.connection {
            Connection::Sqlite(_) => statement.to_owned(),
            Connection::Postgres(..) => format!("{statement} {}", lock.words()),
        })
    }

    /// Holds rows, which a table's name and a condition say. `false` when there are none; where there is
    /// one writer, nothing is asked, and whoever looks next sees.
    pub(super) async fn hold(
        &mut self,
        rows: &str,
        values: impl Bind,
        lock: Lock,
    ) -> Result<bool, Error> {
        let held = self.held("CAST('' AS TEXT)", rows, values, lock).await?;
        Ok(held.is_none_or(|held| !held.is_empty()))
    }

    /// The same, and gives the column of each; `None` where there is one writer.
    pub(super) async fn held(
        &mut self,
        column: &str,
        rows: &str,
        values: impl Bind,
        lock: Lock,
    ) -> Result<Option<Vec<String>>, Error> {
        if let Connection::Sqlite(_) = self.connection {
            return Ok(None);
        }
        let statement = self.locking(&format!("SELECT {column} FROM {rows}"), lock);
        self.all(statement, values).await.map(Some)
    }
}
