//! The journal, which is SQLite's write-ahead log, and its way into the database's file.
//!
//! SQLite by itself does that in the commit that makes the journal long: a thousand pages scattered
//! over the file are written and synced before whoever waits for that commit is told. Here a
//! connection of its own does it beside the writer. The journal can begin anew only when all of it
//! is in the file; so the writer waits for the last of it, which is little.

use std::sync::Arc;

use berth_shared::telemetry::chain;
use sqlx::{Connection, SqliteConnection};
use tokio::sync::{Mutex, mpsc::Receiver};

use crate::metadata::{Error, statement::Statements};

/// Pages in the journal from which on they are brought into the file.
const PAGES: i64 = 1000;

/// Pages that the writer waits for: it takes less time than some commits.
const REST: i64 = 200;

/// How often what was written meanwhile is brought in beside the writer: each time it is less.
const PASSES_MAX: usize = 3;

/// Pages from which on the writer waits for whatever is left: where it never rests, the journal
/// would grow without end.
const PAGES_MAX: i64 = 16 * PAGES;

/// The journal, as a connection of its own sees it.
pub(super) struct Journal {
    connection: SqliteConnection,
    /// Held by the writer in a transaction.
    turn: Arc<Mutex<()>>,
}

/// Pages in the journal.
#[derive(Debug, Clone, Copy)]
struct Length {
    all: i64,
    /// Those that are not in the file.
    left: i64,
}

impl Journal {
    pub(super) fn new(connection: SqliteConnection, turn: Arc<Mutex<()>>) -> Self {
        Self { connection, turn }
    }

    /// Looks after each of the `commits` whether the journal is long, until there will be no more.
    pub(super) async fn keep_short(mut self, mut commits: Receiver<()>) {
        let mut due = PAGES;
        while commits.recv().await.is_some() {
            match self.shorten(due).await {
                Ok(next) => due = next,
                Err(error) => {
                    due += PAGES;
                    tracing::warn!(error = chain(&error), "bringing the journal into the database");
                }
            }
        }
        if let Err(error) = self.connection.close().await {
            tracing::warn!(error = chain(&error), "closing the database");
        }
    }

    /// Brings the journal into the file if it is as long as `due`. Gives the length at which that is
    /// due next: one that somebody reads stays, and is not tried again at every commit.
    async fn shorten(&mut self, due: i64) -> Result<i64, Error> {
        let mut length = self.length().await?;
        if length.all < due {
            return Ok(due);
        }
        for _ in 0..PASSES_MAX {
            length = self.bring_in().await?;
            if length.left <= REST {
                break;
            }
        }
        if length.left <= REST || length.all >= PAGES_MAX {
            let turn = Arc::clone(&self.turn).lock_owned().await;
            length = self.bring_in().await?;
            drop(turn);
        }
        Ok(if length.left == 0 { PAGES } else { length.all + PAGES })
    }

    async fn length(&mut self) -> Result<Length, Error> {
        self.checkpoint("PRAGMA wal_checkpoint(NOOP)").await
    }

    /// Brings in what nobody reads as it was before. The writer may go on meanwhile.
    async fn bring_in(&mut self) -> Result<Length, Error> {
        self.checkpoint("PRAGMA wal_checkpoint(PASSIVE)").await
    }

    async fn checkpoint(&mut self, statement: &'static str) -> Result<Length, Error> {
        let (_busy, all, done): (i64, i64, i64) = self.connection.one(statement, ()).await?;
        Ok(Length { all, left: all - done })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use sqlx::ConnectOptions;
    use tokio::task::yield_now;

    use super::*;
    use crate::metadata::{Database, sqlite::options};

    async fn open(path: &Path) -> (Database, Journal) {
        let database = Database::open(path).await.unwrap();
        let eye = options(path).connect().await.unwrap();
        (database, Journal::new(eye, Arc::default()))
    }

    /// Writes at least that many pages in one transaction.
    async fn write(database: &Database, pages: i64) {
        let write = database.write(pages, |tx, pages| {
            Box::pin(async move {
                let statement = "INSERT INTO repositories (name) VALUES (HEX(RANDOMBLOB($1)))";
                tx.run(statement, pages * 2048).await.map(drop)
            })
        });
        write.await.unwrap();
    }

    async fn until_in_the_file(eye: &mut Journal) {
        while eye.length().await.unwrap().left > 0 {
            yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_long_journal_is_brought_into_the_file_and_begins_anew() {
        let directory = tempfile::tempdir().unwrap();
        let (database, mut eye) = open(&directory.path().join("registry.db")).await;
        for _ in 0..3 {
            write(&database, PAGES).await;
            until_in_the_file(&mut eye).await;
            write(&database, 1).await;
            assert!(eye.length().await.unwrap().all < PAGES);
        }
    }

    #[tokio::test]
    async fn a_journal_that_somebody_reads_waits_for_them() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("registry.db");
        let (database, mut eye) = open(&path).await;
        let mut reader = options(&path).connect().await.unwrap();
        reader.run("BEGIN", ()).await.unwrap();
        let _: i64 = reader.one("SELECT COUNT(*) FROM repositories", ()).await.unwrap();
        write(&database, PAGES).await;
        write(&database, PAGES).await;
        assert!(eye.length().await.unwrap().left >= 2 * PAGES);
        reader.run("COMMIT", ()).await.unwrap();
        write(&database, PAGES).await;
        until_in_the_file(&mut eye).await;
    }
}
