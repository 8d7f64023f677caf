//! What queries write through.

use berth_shared::database::{Connection, Statements};

use super::{Error, key::Key};

/// How many statements work makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// One, which the server commits by itself.
    One,
    /// As many as it likes, in a transaction.
    Several,
}

/// What work on the database gets: a connection inside a transaction, and a list of what the
/// commit makes stale.
pub(super) struct Transaction<'c> {
    pub(super) connection: Connection<'c>,
    /// What the cache is to drop once this has committed.
    pub(super) stale: &'c mut Vec<Key>,
}

impl Transaction<'_> {
    /// Drops `key` from the cache when the transaction is committed.
    pub(super) fn invalidate(&mut self, key: Key) {
        self.stale.push(key);
    }
}

impl Statements for Transaction<'_> {
    type Error = Error;

    fn connection(&mut self) -> Connection<'_> {
        self.connection.connection()
    }
}
