//! A transaction that changes something, and the rows of the audit in it.

use berth_shared::database::{Connection, Statements};
use futures_util::future::BoxFuture;
use serde_json::Value;
use sqlx::{Connection as _, Sqlite, SqliteConnection};

use super::{Database, Error};
use crate::audit::{Act, Author};

/// What an act is done through; what is not committed is rolled back.
pub(super) struct Transaction<'c> {
    begun: sqlx::Transaction<'c, Sqlite>,
    /// Whose act it is.
    author: &'c Author,
}

impl<'c> Transaction<'c> {
    /// Begins as a writer, so that what is read still holds when something is written.
    pub(super) async fn begin(
        connection: &'c mut SqliteConnection,
        author: &'c Author,
    ) -> Result<Self, Error> {
        Ok(Self { begun: connection.begin_with("BEGIN IMMEDIATE").await?, author })
    }

    /// Writes down an act in the transaction that does it.
    pub(super) async fn record(&mut self, act: &Act<'_>) -> Result<(), Error> {
        let (word, subject, mut detail) = act.parts();
        detail.extend(self.author.more.clone());
        let detail = Value::Object(detail).to_string();
        let insert =
            "INSERT INTO audit (at, event, subject, actor, detail) VALUES ($1, $2, $3, $4, $5)";
        let (at, actor) = (self.author.clock.now(), self.author.name.as_str());
        self.run(insert, (at, word, subject, actor, detail)).await.map(drop)
    }

    /// Keeps what was done.
    pub(super) async fn commit(self) -> Result<(), Error> {
        Ok(self.begun.commit().await?)
    }
}

impl Statements for Transaction<'_> {
    type Error = Error;

    fn connection(&mut self) -> Connection<'_> {
        Connection::Sqlite(&mut self.begun)
    }
}

/// An act's worth of statements, which can be repeated: it keeps nothing of what it is given.
pub(super) trait Work<G, T>:
    for<'t> Fn(&'t mut Transaction<'_>, &'t G) -> BoxFuture<'t, Result<T, Error>> + Send + Sync
{
}

impl<G, T, W> Work<G, T> for W where
    W: for<'t> Fn(&'t mut Transaction<'_>, &'t G) -> BoxFuture<'t, Result<T, Error>> + Send + Sync
{
}

impl Database {
    /// Does `work` on what is `given` to it in one transaction, and gives its result once that is
    /// committed. When it fails, nothing of it is kept.
    ///
    /// # Errors
    /// What `work` says, and when the database cannot be written to.
    pub(super) async fn act<G: Sync, T>(
        &self,
        given: G,
        work: impl Work<G, T>,
    ) -> Result<T, Error> {
        let mut writer = self.writer.lock().await;
        let mut transaction = Transaction::begin(&mut writer, &self.author).await?;
        let done = work(&mut transaction, &given).await?;
        transaction.commit().await?;
        Ok(done)
    }
}
