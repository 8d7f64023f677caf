//! The counters that no token needs any more: they go, or every machine that was made for one build
//! would leave one for ever, in the table that the registry asks for every two seconds.
//!
//! A counter voids the tokens that were issued before it was raised, so that it can go once all of
//! them have expired. What tells is a mark: how far the sequence was at some time. Refresh tokens,
//! which hold for long, do not need counters: their rows go when their subject's tokens are voided,
//! and the tokens that come of them say the sequence of then.
//!
//! A void token must not become good because a clock was wrong for a moment. So a mark is old when
//! the server has run for a week since, and when the time of day says so too. And the time
//! of a mark is the latest that tokens may have been issued at before it: tokens that were issued
//! under a clock that was ahead hold until then.

use std::time::Duration;

use berth_shared::{
    claims::{LEEWAY_SECS, SESSION_GRANT_SECS_MAX},
    clock::UnixSeconds,
    database::Statements,
    subject::Grantee,
};

use super::{Database, Error, members::losers, transaction::Transaction};
use crate::issue::TOKEN_LIFE_SECS_MAX;

/// How long the server runs from one mark to the next.
pub const MARK_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// How long a counter is kept, in hours, and so how many marks must come after one: three times as
/// long as any token can be of use, for tokens whose issue took long and for clocks that disagree.
const KEPT_HOURS: i64 = 7 * 24;

/// The number of the last mark.
const LAST_MARK: &str = "SELECT COALESCE(MAX(id), 0) FROM counter_marks";

/// The same in seconds.
pub const KEPT_SECS: i64 = KEPT_HOURS * 60 * 60;

/// A token holds for its life and the leeway, and whoever uploads with it may go on for a day.
const _: () =
    assert!(KEPT_SECS > TOKEN_LIFE_SECS_MAX as i64 + SESSION_GRANT_SECS_MAX + 2 * LEEWAY_SECS);

impl Database {
    /// Begins an hour.
    pub(super) async fn begin_hour(&self) -> Result<(), Error> {
        let last = self.working().await?.one(LAST_MARK, ()).await?;
        self.hour.begin(last);
        Ok(())
    }

    /// Sets a mark, and clears away the counters that every token has outlived. To be called when
    /// the server has run for [`MARK_INTERVAL`] since the last time. Tokens were issued at `latest`
    /// at the latest, by clocks that may have been ahead. Gives back how many counters went.
    ///
    /// # Errors
    /// When the database cannot be written to; nothing is changed then.
    pub async fn clear_counters(
        &self,
        now: UnixSeconds,
        latest: UnixSeconds,
    ) -> Result<u64, Error> {
        let seen = self.hour.seen();
        let cleared = self.act((now, latest, seen), |tx, &(now, latest, seen)| {
            Box::pin(async move {
                // Marks are an hour of somebody's running time apart: where another server has set one
                // within this one's, it begins a new hour.
                let last: i64 = tx.one(LAST_MARK, ()).await?;
                if last != seen {
                    return Ok((0, last));
                }
                let mark = "INSERT INTO counter_marks (id, at, sequence)
                     SELECT COALESCE(MAX(id), 0) + 1, CASE WHEN MAX(at) > $1 THEN MAX(at) ELSE $1 END,
                     (SELECT value FROM sequence) FROM counter_marks";
                tx.run(mark, now.max(latest)).await?;
                let old = "SELECT id, sequence FROM counter_marks
                     WHERE at <= $1 AND id <= (SELECT MAX(id) FROM counter_marks) - $2
                     ORDER BY id DESC LIMIT 1";
                let old: Option<(i64, i64)> =
                    tx.optional(old, (now - KEPT_SECS, KEPT_HOURS)).await?;
                let Some((id, sequence)) = old else { return Ok((0, last + 1)) };
                let cleared = tx.run("DELETE FROM counters WHERE counter <= $1", sequence).await?;
                tx.run("DELETE FROM counter_marks WHERE id <= $1", id).await?;
                Ok((cleared, last + 1))
            })
        });
        let (cleared, mark) = cleared.await?;
        self.hour.begin(mark);
        Ok(cleared)
    }
}

/// Moves the sequence on and makes its new value the counter of each of `grantees`; of a group, of
/// each of its members, since the registry does not know who is in a group.
pub(super) async fn raise(
    transaction: &mut Transaction<'_>,
    grantees: &[Grantee],
) -> Result<(), Error> {
    for grantee in grantees {
        for loser in losers(transaction, grantee).await? {
            let next = "UPDATE sequence SET value = CASE WHEN value < $1 THEN $1 ELSE value + 1 END
                 RETURNING value";
            let least = transaction.sequence_min();
            let next: i64 = transaction.one(next, least).await?;
            let counter = "INSERT INTO counters (grantee, counter) VALUES ($1, $2)
                 ON CONFLICT (grantee) DO UPDATE SET counter = excluded.counter";
            transaction.run(counter, (loser, next)).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Database, samples::counter},
        *,
    };

    const NOW: UnixSeconds = UnixSeconds::new(1_790_000_000);

    const HOUR: i64 = 60 * 60;

    async fn open(dir: &tempfile::TempDir) -> Database {
        Database::open(&dir.path().join("auth.db")).await.unwrap()
    }

    async fn void(database: &Database, grantee: &str) {
        database.void_tokens(&grantee.parse().unwrap()).await.unwrap();
    }

    /// The server runs for `hours`, by a clock that begins at `begin` and goes right.
    async fn run(database: &Database, begin: UnixSeconds, hours: i64) -> u64 {
        let mut cleared = 0;
        for hour in 0..hours {
            let now = begin + hour * HOUR;
            cleared += database.clear_counters(now, now).await.unwrap();
        }
        cleared
    }

    #[tokio::test]
    async fn counters_go_when_every_token_from_before_has_expired() {
        let dir = tempfile::tempdir().unwrap();
        let database = open(&dir).await;
        void(&database, "a").await;
        void(&database, "b").await;
        assert_eq!(run(&database, NOW, 1).await, 0);
        // What is raised after a mark waits for the next, and what is raised again stays.
        void(&database, "c").await;
        void(&database, "b").await;
        assert_eq!(run(&database, NOW + HOUR, KEPT_HOURS - 1).await, 0);
        assert_eq!(run(&database, NOW + KEPT_SECS, 1).await, 1);
        assert_eq!((counter(&database, "a").await, counter(&database, "c").await), (0, 3));
        assert_eq!(run(&database, NOW + KEPT_SECS + HOUR, 1).await, 2);
        let policy = database.policy().await.unwrap();
        assert!(policy.revocations.counters.is_empty());
        assert_eq!(policy.sequence, 4, "which never goes back");
        void(&database, "a").await;
        assert_eq!(counter(&database, "a").await, 5);
    }

    #[tokio::test]
    async fn no_clock_alone_makes_a_counter_go() {
        let dir = tempfile::tempdir().unwrap();
        let database = open(&dir).await;
        void(&database, "a").await;
        assert_eq!(run(&database, NOW, 10).await, 0);
        for ahead in [10 * KEPT_SECS, 100 * KEPT_SECS] {
            assert_eq!(run(&database, NOW + ahead, 1).await, 0);
        }
        // Nor does it go before the time that tokens were issued at, by that clock, is over.
        let ahead = NOW + 100 * KEPT_SECS;
        assert_eq!(run(&database, NOW + 12 * HOUR, KEPT_HOURS - 12).await, 0);
        assert_eq!(run(&database, NOW + KEPT_SECS, 1).await, 1, "its mark is from before all that");
        void(&database, "b").await;
        assert_eq!(run(&database, NOW + KEPT_SECS + HOUR, KEPT_HOURS + 1).await, 0);
        assert_eq!(run(&database, ahead + KEPT_SECS - 1, 1).await, 0);
        assert_eq!(run(&database, ahead + KEPT_SECS, 1).await, 1);
    }

    #[tokio::test]
    async fn tokens_that_were_issued_under_a_clock_that_was_ahead_stay_void() {
        let dir = tempfile::tempdir().unwrap();
        let database = open(&dir).await;
        void(&database, "a").await;
        database.clear_counters(NOW, NOW + 10 * KEPT_SECS).await.unwrap();
        assert_eq!(run(&database, NOW, KEPT_HOURS + 1).await, 0);
        assert_eq!(run(&database, NOW + 11 * KEPT_SECS - 1, 1).await, 0);
        assert_eq!(run(&database, NOW + 11 * KEPT_SECS, 1).await, 1);
    }
}
