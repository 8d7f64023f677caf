//! The connection that writes, and whose acts are done through it.

use sqlx::SqliteConnection;
use tokio::sync::{Mutex, MutexGuard};

use crate::audit::Author;

/// The one connection of this process that writes.
#[derive(Debug)]
pub(super) struct Writer {
    connection: Mutex<SqliteConnection>,
    /// Whose acts are done through it.
    author: Author,
}

impl Writer {
    /// Writes what `author` does.
    pub(super) fn new(connection: SqliteConnection, author: Author) -> Self {
        Self { connection: Mutex::new(connection), author }
    }

    /// The same connection for acts of another.
    pub(super) fn acting(self, author: Author) -> Self {
        Self { author, ..self }
    }

    /// Whose acts are done here.
    pub(super) fn author(&self) -> &Author {
        &self.author
    }

    /// The connection, once nobody else writes.
    pub(super) async fn lock(&self) -> MutexGuard<'_, SqliteConnection> {
        self.connection.lock().await
    }

    /// The connection, to be closed.
    pub(super) fn into_connection(self) -> SqliteConnection {
        self.connection.into_inner()
    }
}
