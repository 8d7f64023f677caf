//! A transaction that changes something, and the rows of the audit in it.

use std::{ops::Range, time::Duration};

use berth_shared::database::{Connection, Statements};
use futures_util::future::BoxFuture;
use serde_json::Value;
use sqlx::{Connection as _, Postgres, Sqlite, SqliteConnection};
use tokio::time::sleep;

use super::{
    Database, Error,
    handle::Engine,
    postgres::{HOLD_SEQUENCE, SHARE_SEQUENCE, Server, in_time, stood_in_the_way},
};
use crate::audit::{Act, Author};

/// How often a transaction is tried that meets others.
const TRIES_MAX: u32 = 6;

/// How long it waits before it is tried again, at least and at most, in milliseconds.
const WAIT_MILLIS: Range<u64> = 10..100;

/// How a transaction stands to the acts of others. In a file all follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// An act: it follows those before it, and others wait for it.
    Act,
    /// It rests on what acts change, and goes beside others like it.
    Beside,
    /// It rests on nothing that acts change.
    Free,
}

impl Turn {
    /// What PostgreSQL is asked first.
    fn statement(self) -> Option<&'static str> {
        match self {
            Self::Act => Some(HOLD_SEQUENCE),
            Self::Beside => Some(SHARE_SEQUENCE),
            Self::Free => None,
        }
    }
}

/// What an act is done through; what is not committed is rolled back.
pub(super) struct Transaction<'c> {
    begun: Begun<'c>,
    /// Whose act it is.
    author: &'c Author,
}

enum Begun<'c> {
    Sqlite(sqlx::Transaction<'c, Sqlite>),
    Postgres(sqlx::Transaction<'c, Postgres>, Duration),
}

impl<'c> Transaction<'c> {
    /// Begins as a writer of a file, so that what is read still holds when something is written.
    pub(super) async fn begin(
        connection: &'c mut SqliteConnection,
        author: &'c Author,
    ) -> Result<Self, Error> {
        let begun = Begun::Sqlite(connection.begin_with("BEGIN IMMEDIATE").await?);
        Ok(Self { begun, author })
    }

    /// Whose act it is.
    pub(super) fn author(&self) -> &Author {
        self.author
    }

    /// The least that the sequence is to be moved on to. At a server that is the time in milliseconds: where
    /// one fails over to a copy that lacks the last commits, no number comes twice.
    pub(super) fn sequence_min(&self) -> i64 {
        match self.begun {
            Begun::Sqlite(_) => 0,
            Begun::Postgres(..) => self.author.clock.now().get().saturating_mul(1000),
        }
    }

    /// Writes down an act in the transaction that does it.
    pub(super) async fn record(&mut self, act: &Act<'_>) -> Result<(), Error> {
        let (word, subject, mut detail) = act.parts();
        detail.extend(self.author.more.clone());
        let detail = Value::Object(detail).to_string();
        let id = self.number(1).await?;
        let insert = "INSERT INTO audit (id, at, event, subject, actor, detail)
             VALUES ($1, $2, $3, $4, $5, $6)";
        let (at, actor) = (self.author.clock.now(), self.author.name.as_str());
        self.run(insert, (id, at, word, subject, actor, detail)).await.map(drop)
    }

    /// Takes so many numbers for rows of the audit, and gives the first. They are given in the order of
    /// commits, since whoever takes some holds the row of the last until then: who has seen a row, has seen
    /// all before it.
    pub(super) async fn number(&mut self, count: i64) -> Result<i64, Error> {
        let last = "UPDATE audit_head SET last = last + $1 RETURNING last";
        let last: i64 = self.one(last, count).await?;
        Ok(last - count + 1)
    }

    /// Keeps what was done.
    pub(super) async fn commit(self) -> Result<(), Error> {
        match self.begun {
            Begun::Sqlite(begun) => Ok(begun.commit().await?),
            Begun::Postgres(begun, answer_time) => in_time(answer_time, begun.commit()).await,
        }
    }
}

impl Statements for Transaction<'_> {
    type Error = Error;

    fn connection(&mut self) -> Connection<'_> {
        match &mut self.begun {
            Begun::Sqlite(begun) => Connection::Sqlite(begun),
            Begun::Postgres(begun, answer_time) => Connection::Postgres(begun, *answer_time),
        }
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
        self.change(Turn::Act, given, work).await
    }

    /// The same for what is no act, or stands otherwise to those of others.
    ///
    /// # Errors
    /// As [`act`](Self::act).
    pub(super) async fn change<G: Sync, T>(
        &self,
        turn: Turn,
        given: G,
        work: impl Work<G, T>,
    ) -> Result<T, Error> {
        match &self.engine {
            Engine::Sqlite(writer) => {
                let mut writer = self.writer(writer).await?;
                let mut transaction = Transaction::begin(&mut writer, &self.author).await?;
                let done = work(&mut transaction, &given).await?;
                transaction.commit().await?;
                Ok(done)
            }
            Engine::Postgres(server) => {
                for _ in 1..TRIES_MAX {
                    match self.once(server, turn, &given, &work).await {
                        Err(error) if stood_in_the_way(&error) => {
                            tracing::debug!(%error, "an act met another and is repeated");
                            sleep(Duration::from_millis(fastrand::u64(WAIT_MILLIS))).await;
                        }
                        done => return done,
                    }
                }
                self.once(server, turn, &given, &work).await
            }
        }
    }

    async fn once<G: Sync, T>(
        &self,
        server: &Server,
        turn: Turn,
        given: &G,
        work: &impl Work<G, T>,
    ) -> Result<T, Error> {
        let mut held = server.hold().await?;
        let answer_time = held.answer_time();
        let begun = Begun::Postgres(held.begin(None).await?, answer_time);
        let mut transaction = Transaction { begun, author: &self.author };
        if let Some(statement) = turn.statement() {
            transaction.run(statement, ()).await?;
        }
        let done = work(&mut transaction, given).await?;
        transaction.commit().await?;
        Ok(done)
    }
}
