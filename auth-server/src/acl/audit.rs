//! The table of the audit: acts in their own transactions, what clients caused in batches, and
//! what was written, read back.

use berth_shared::clock::UnixSeconds;
use serde_json::{Map, Value};
use sqlx::{Row as _, Sqlite, SqliteConnection, query::Query, sqlite::SqliteArguments};

use super::{Error, edit::begin, store::Store};
use crate::audit::{Act, Author, Row, entry::Entry};

/// Acts of administration that are kept, whatever clients cause: years of them.
const ACTS_MAX: i64 = 100_000;

/// Acts that are counted in one statement. Nothing that is written waits for it.
const ACTS_PAGE: i64 = 10_000;

/// Rows that one call clears away at most, so that a smaller `rows_max` stops nothing for long:
/// twice what a batch can bring.
const CLEARED_MAX: i64 = 20_000;

/// Which rows are meant; every part that is given must hold.
#[derive(Debug, Default, Clone)]
pub struct Filter {
    /// Not before this.
    pub since: Option<UnixSeconds>,
    /// Before this.
    pub until: Option<UnixSeconds>,
    /// About exactly this subject.
    pub subject: Option<String>,
    /// The event's word, where `*` stands for anything.
    pub event: Option<String>,
}

/// How far the table has been cleared.
#[derive(Debug, Default)]
pub struct Cleared {
    /// The last id below which no row is left that a client caused.
    through: i64,
}

impl Store {
    /// Writes down an act that has no transaction of its own.
    ///
    /// # Errors
    /// When the database cannot be written to.
    pub async fn record(&self, act: &Act<'_>) -> Result<(), Error> {
        let mut writer = self.writer.lock().await;
        let mut transaction = begin(&mut writer).await?;
        record(&mut transaction, &self.author, act).await?;
        Ok(transaction.commit().await?)
    }

    /// Writes a batch of what clients caused, in its order, and how far the rows have been exported.
    ///
    /// # Errors
    /// When the database cannot be written to; nothing is written then.
    pub async fn append(&self, entries: &[Entry], exported: i64) -> Result<(), Error> {
        let batch = serde_json::to_string(entries)?;
        let mut writer = self.writer.lock().await;
        let mut transaction = begin(&mut writer).await?;
        sqlx::query(
            "INSERT INTO audit (at, event, subject, detail)
             SELECT value ->> 'at', value ->> 'event', value ->> 'subject', value -> 'detail'
             FROM json_each($1) ORDER BY key",
        )
        .bind(batch)
        .execute(&mut *transaction)
        .await?;
        sqlx::query("UPDATE audit_exported SET last_id = $1")
            .bind(exported)
            .execute(&mut *transaction)
            .await?;
        Ok(transaction.commit().await?)
    }

    /// Clears away the oldest rows that clients caused, so that `rows_max` newer rows stay. Does a
    /// bounded part of it at each call. Gives back how many of them were behind the id `exported`.
    ///
    /// # Errors
    /// When the database cannot be written to.
    pub async fn clear(
        &self,
        rows_max: u64,
        cleared: &mut Cleared,
        exported: i64,
    ) -> Result<u64, Error> {
        let mut writer = self.writer.lock().await;
        let newest: i64 = sqlx::query_scalar("SELECT COALESCE(MAX(id), 0) FROM audit")
            .fetch_one(&mut *writer)
            .await?;
        let last = newest.saturating_sub(i64::try_from(rows_max).unwrap_or(i64::MAX));
        if last <= cleared.through {
            return Ok(0);
        }
        let oldest: Option<i64> =
            sqlx::query_scalar("SELECT MIN(id) FROM audit WHERE id > $1 AND actor IS NULL")
                .bind(cleared.through)
                .fetch_one(&mut *writer)
                .await?;
        let Some(oldest) = oldest else { return Ok(0) };
        let last = last.min(oldest.saturating_add(CLEARED_MAX));
        let behind: i64 = sqlx::query_scalar(
            "SELECT COUNT(*) FROM audit WHERE id > $1 AND id BETWEEN $2 AND $3 AND actor IS NULL",
        )
        .bind(exported)
        .bind(oldest)
        .bind(last)
        .fetch_one(&mut *writer)
        .await?;
        sqlx::query("DELETE FROM audit WHERE id BETWEEN $1 AND $2 AND actor IS NULL")
            .bind(oldest)
            .bind(last)
            .execute(&mut *writer)
            .await?;
        cleared.through = last.max(cleared.through);
        Ok(behind.unsigned_abs())
    }

    /// Clears away the oldest acts of administration beyond the hundred thousand that are kept.
    ///
    /// # Errors
    /// When the database cannot be written to.
    pub async fn clear_acts(&self) -> Result<(), Error> {
        let mut last = i64::MAX;
        for _ in 0..ACTS_MAX / ACTS_PAGE {
            let next: Option<i64> = sqlx::query_scalar(
                "SELECT id FROM audit WHERE actor IS NOT NULL AND id < $1
                 ORDER BY id DESC LIMIT 1 OFFSET $2",
            )
            .bind(last)
            .bind(ACTS_PAGE - 1)
            .fetch_optional(&mut self.reader.lock().await.connection)
            .await?;
            let Some(next) = next else { return Ok(()) };
            last = next;
        }
        sqlx::query("DELETE FROM audit WHERE actor IS NOT NULL AND id < $1")
            .bind(last)
            .execute(&mut *self.writer.lock().await)
            .await?;
        Ok(())
    }

    /// The last row that was exported, as far as it was written down.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn exported(&self) -> Result<i64, Error> {
        let last = sqlx::query_scalar("SELECT last_id FROM audit_exported");
        Ok(last.fetch_one(&mut *self.writer.lock().await).await?)
    }

    /// The rows behind `id`, the oldest first, `count` at most.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn rows_after(&self, id: i64, count: u32) -> Result<Vec<Row>, Error> {
        let query = sqlx::query(
            "SELECT id, at, event, subject, actor, detail FROM audit
             WHERE id > $1 ORDER BY id LIMIT $2",
        );
        self.read_rows(query.bind(id).bind(count)).await
    }

    /// The newest rows that `filter` lets through, `count` at most, the oldest of them first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn audit(&self, filter: &Filter, count: u32) -> Result<Vec<Row>, Error> {
        // The time leads to an id: rows are in the order of both, but for a clock that was set back.
        let query = sqlx::query(
            "SELECT id, at, event, subject, actor, detail FROM audit
             WHERE id >= COALESCE((SELECT MIN(id) FROM audit WHERE at >= $1), 0)
               AND +at >= $1 AND +at < $2 AND ($3 IS NULL OR subject = $3)
               AND ($4 IS NULL OR event GLOB $4)
             ORDER BY id DESC LIMIT $5",
        );
        let query = query
            .bind(filter.since.unwrap_or(i64::MIN))
            .bind(filter.until.unwrap_or(i64::MAX))
            .bind(&filter.subject)
            .bind(&filter.event)
            .bind(count);
        let mut rows = self.read_rows(query).await?;
        rows.reverse();
        Ok(rows)
    }

    async fn read_rows(
        &self,
        query: Query<'_, Sqlite, SqliteArguments>,
    ) -> Result<Vec<Row>, Error> {
        let rows = query.fetch_all(&mut *self.writer.lock().await).await?;
        let read = |row: &sqlx::sqlite::SqliteRow| {
            Ok(Row {
                id: row.try_get("id")?,
                at: row.try_get("at")?,
                event: row.try_get("event")?,
                subject: row.try_get("subject")?,
                actor: row.try_get("actor")?,
                detail: read_detail(row.try_get("detail")?)?,
            })
        };
        rows.iter().map(read).collect()
    }
}

fn read_detail(text: &str) -> Result<Map<String, Value>, Error> {
    serde_json::from_str(text).map_err(|_| Error::Row(text.to_owned()))
}

/// Writes down an act in the transaction that does it.
pub(super) async fn record(
    transaction: &mut SqliteConnection,
    author: &Author,
    act: &Act<'_>,
) -> Result<(), Error> {
    let mut detail = act.detail();
    detail.extend(author.more().clone());
    sqlx::query(
        "INSERT INTO audit (at, event, subject, actor, detail) VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(author.clock().now())
    .bind(act.word())
    .bind(act.subject())
    .bind(author.name())
    .bind(Value::Object(detail).to_string())
    .execute(transaction)
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use berth_shared::clock::Clock;

    use super::*;

    async fn events(store: &Store, filter: &Filter) -> Vec<String> {
        let rows = store.audit(filter, 100).await.unwrap();
        rows.into_iter().map(|row| row.event).collect()
    }

    #[tokio::test]
    async fn a_filter_lets_through_what_all_of_its_parts_do() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::set(100);
        let store = Store::open(&dir.path().join("auth.db")).await.unwrap();
        let store = store.acting(Author::server(clock.clone()));
        let (andrew, bea) = ("andrew".parse().unwrap(), "bea".parse().unwrap());
        store.record(&Act::UserAdd(&andrew)).await.unwrap();
        clock.advance(std::time::Duration::from_secs(10));
        store.record(&Act::UserPassword(&andrew)).await.unwrap();
        store.record(&Act::HtpasswdAdd(&bea)).await.unwrap();
        store.append(&[Entry::gap(120, 7)], 0).await.unwrap();
        let none = Filter::default();
        let all = ["user.add", "user.passwd", "htpasswd.add", "audit.gap"];
        assert_eq!(events(&store, &none).await, all);
        let some = |text: &str| Some(text.to_owned());
        for (filter, expected) in [
            (Filter { since: Some(110), ..none.clone() }, &all[1..]),
            (Filter { until: Some(110), ..none.clone() }, &all[..1]),
            (Filter { subject: some("andrew"), ..none.clone() }, &all[..2]),
            (Filter { subject: some("and%"), ..none.clone() }, &[]),
            (Filter { event: some("*.add"), subject: some("bea"), ..none.clone() }, &all[2..3]),
            (Filter { event: some("user"), ..none.clone() }, &[]),
        ] {
            assert_eq!(events(&store, &filter).await, expected, "{filter:?}");
        }
        let newest = store.audit(&none, 2).await.unwrap();
        assert_eq!(newest[0].event, "htpasswd.add");
        assert_eq!(
            newest[1].line(),
            "{\"id\":4,\"at\":\"1970-01-01T00:02:00Z\",\"event\":\"audit.gap\",\"subject\":null,\
             \"lost\":7}\n"
        );
    }

    #[tokio::test]
    async fn a_hundred_thousand_acts_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("auth.db")).await.unwrap();
        sqlx::query(
            "WITH RECURSIVE count (n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM count LIMIT $1)
             INSERT INTO audit (at, event, actor, detail)
             SELECT n, 'grant', IIF(n % 3 = 0, NULL, 'root'), '{}' FROM count",
        )
        .bind(ACTS_MAX * 3 / 2 + 6)
        .execute(&mut *store.writer.lock().await)
        .await
        .unwrap();
        store.clear_acts().await.unwrap();
        let (acts, oldest): (i64, i64) =
            sqlx::query_as("SELECT COUNT(*), MIN(id) FROM audit WHERE actor IS NOT NULL")
                .fetch_one(&mut *store.writer.lock().await)
                .await
                .unwrap();
        // Four of the first six rows are acts, and beyond the limit.
        assert_eq!((acts, oldest), (ACTS_MAX, 7));
    }

    #[tokio::test]
    async fn what_clients_cause_pushes_out_no_act_of_an_administrator() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("auth.db")).await.unwrap();
        let mut cleared = Cleared::default();
        store.record(&Act::UserAdd(&"andrew".parse().unwrap())).await.unwrap();
        for behind in [26, 50, 50] {
            store.append(&vec![Entry::gap(0, 1); 50], 0).await.unwrap();
            // Rows 2 to 5 are in the file; of the first 51 those to 31 go.
            assert_eq!(store.clear(20, &mut cleared, 5).await.unwrap(), behind);
        }
        let rows = store.rows_after(0, 1000).await.unwrap();
        assert_eq!((rows.len(), rows[0].event.as_str(), rows[1].id), (21, "user.add", 132));
        store.clear_acts().await.unwrap();
        assert_eq!(store.rows_after(0, 1).await.unwrap()[0].event, "user.add");
        // What was cleared is not cleared again by who has forgotten how far it came.
        assert_eq!(store.clear(20, &mut Cleared::default(), 0).await.unwrap(), 0);
        assert_eq!(store.rows_after(0, 1000).await.unwrap().len(), 21);
    }
}
