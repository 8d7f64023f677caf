//! The table of the audit: acts in their own transactions, what clients caused in batches, and
//! what was written, read back.

use std::iter;

use berth_shared::{
    clock::UnixSeconds,
    database::{self, Bind, Column, Places, Record, Statements},
};
use sqlx::AssertSqlSafe;

use super::{Database, Error, transaction::Turn};
use crate::audit::{Act, Row, entry::Entry};

/// Acts of administration that are kept, whatever clients cause: years of them.
const ACTS_MAX: i64 = 100_000;

/// Rows that one call clears away at most, so that a smaller `rows_max` stops nothing for long:
/// twice what a batch can bring.
const CLEARED_MAX: i64 = 20_000;

/// Rows in one statement: SQLite looks for each place among all of them, one by one.
const PART_MAX: usize = 32;

/// The rings that are not failures': acts, and what was given as it was asked for; see the eighth
/// migration.
const ACTS: &str = "act";
const ISSUES: &str = "issue";

/// How many rows each ring has.
const RINGS: &str = "SELECT ring, rows FROM audit_rings";

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

/// How many rows that clients caused are kept.
#[derive(Debug, Clone, Copy)]
pub struct Kept {
    /// Of what was given as it was asked for, and what anonymous clients asked for.
    pub rows_max: u64,
    /// Of each kind of failure.
    pub failure_rows_max: u64,
}

impl Kept {
    /// How many rows of a ring are kept.
    fn of(self, ring: &str) -> i64 {
        let most = match ring {
            ACTS => return ACTS_MAX,
            ISSUES => self.rows_max,
            _ => self.failure_rows_max,
        };
        i64::try_from(most).unwrap_or(i64::MAX)
    }

    /// How many rows of each ring are too many, as far as one call clears them away.
    fn beyond(self, rings: Vec<(String, i64)>) -> impl Iterator<Item = (String, i64)> {
        let mut left = CLEARED_MAX;
        let beyond = rings.into_iter().map(move |(ring, rows)| {
            let beyond = (rows - self.of(&ring)).clamp(0, left);
            left -= beyond;
            (ring, beyond)
        });
        beyond.filter(|(_, beyond)| *beyond > 0)
    }
}

impl Database {
    /// Writes down an act that has no transaction of its own.
    ///
    /// # Errors
    /// When the database cannot be written to.
    pub async fn record(&self, act: &Act<'_>) -> Result<(), Error> {
        self.act(act, |tx, act| Box::pin(tx.record(act))).await
    }

    /// Writes a batch of what clients caused, in its order, and how far the rows have been exported.
    ///
    /// # Errors
    /// When the database cannot be written to; nothing is written then.
    pub async fn append_entries(&self, entries: &[Entry], exported: i64) -> Result<(), Error> {
        let appended = self.change(Turn::Free, entries, move |tx, &entries| {
            Box::pin(async move {
                let mut id = tx.number(entries.len() as i64).await?;
                for part in parts(entries) {
                    let rows = places(part.len());
                    let insert =
                        format!("INSERT INTO audit (id, at, event, subject, detail) VALUES {rows}");
                    tx.run(AssertSqlSafe(insert), Values::of(id, part)?).await?;
                    id += part.len() as i64;
                }
                tx.run("UPDATE audit_exported SET last_id = $1", exported).await.map(drop)
            })
        });
        appended.await
    }

    /// Clears away the oldest rows of every ring that has more than are kept. Does a bounded part of
    /// it at each call. Gives back how many of them were behind the id `exported`.
    ///
    /// # Errors
    /// When the database cannot be written to.
    pub async fn clear_rows(&self, kept: Kept, exported: i64) -> Result<u64, Error> {
        let rings = self.working().await?.all(RINGS, ()).await?;
        if kept.beyond(rings).next().is_none() {
            return Ok(0);
        }
        // All of it or nothing: what was cleared away is told.
        let cleared = self.change(Turn::Free, kept, move |tx, &kept| {
            Box::pin(async move {
                // Held, and looked at once more: another server may be clearing away the same.
                tx.run("UPDATE audit_head SET last = last", ()).await?;
                let rings = tx.all(RINGS, ()).await?;
                let mut behind = 0;
                for (ring, beyond) in kept.beyond(rings) {
                    let count = "SELECT COUNT(*)
                         FROM (SELECT id FROM audit WHERE ring = $1 ORDER BY id LIMIT $2) AS oldest
                         WHERE id > $3";
                    behind += tx.one::<u64>(count, (&ring, beyond, exported)).await?;
                    let clear = "DELETE FROM audit
                         WHERE id IN (SELECT id FROM audit WHERE ring = $1 ORDER BY id LIMIT $2)";
                    tx.run(clear, (&ring, beyond)).await?;
                }
                Ok(behind)
            })
        });
        cleared.await
    }

    /// The last row that was exported, as far as it was written down.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn exported_row(&self) -> Result<i64, Error> {
        self.working().await?.one("SELECT last_id FROM audit_exported", ()).await
    }

    /// The rows behind `id`, the oldest first, `count` at most.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn rows_after(&self, id: i64, count: u32) -> Result<Vec<Row>, Error> {
        let statement = "SELECT id, at, event, subject, actor, detail, ring FROM audit
             WHERE id > $1 ORDER BY id LIMIT $2";
        self.working().await?.all(statement, (id, count)).await
    }

    /// The newest rows that `filter` lets through, `count` at most, the oldest of them first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn list_rows(&self, filter: &Filter, count: u32) -> Result<Vec<Row>, Error> {
        // The time leads to an id: rows are in the order of both, but for a clock that was set back.
        let statement = "SELECT id, at, event, subject, actor, detail, ring FROM audit
             WHERE id >= COALESCE((SELECT MIN(id) FROM audit WHERE at >= $1), 0)
               AND +at >= $1 AND +at < $2 AND (CAST($3 AS TEXT) IS NULL OR subject = $3)
               AND (CAST($4 AS TEXT) IS NULL OR event LIKE $4 ESCAPE '!')
             ORDER BY id DESC LIMIT $5";
        let values = (
            filter.since.unwrap_or(UnixSeconds::MIN),
            filter.until.unwrap_or(UnixSeconds::MAX),
            filter.subject.as_deref(),
            filter.event.as_deref().map(like),
            count,
        );
        let mut rows: Vec<Row> = self.working().await?.all(statement, values).await?;
        rows.reverse();
        Ok(rows)
    }
}

/// What the rows of a part of a batch have, one behind the other.
struct Values<'e>(Vec<(i64, UnixSeconds, &'e str, Option<&'e str>, String)>);

impl<'e> Values<'e> {
    /// Those of rows that are numbered from `first` on.
    fn of(first: i64, part: &'e [Entry]) -> Result<Self, Error> {
        let values = (first..).zip(part).map(|(id, entry)| {
            let (at, event, subject, detail) = entry.values()?;
            Ok((id, at, event, subject, detail))
        });
        Ok(Self(values.collect::<Result<_, Error>>()?))
    }
}

impl Bind for Values<'_> {
    fn bind(&self, places: &mut Places<'_>) -> Result<(), database::Error> {
        self.0.iter().try_for_each(|values| values.bind(places))
    }
}

impl database::Row for Row {
    fn of(row: &Record) -> Result<Self, database::Error> {
        let detail = String::at(row, "detail")?;
        Ok(Self {
            id: Column::at(row, "id")?,
            at: Column::at(row, "at")?,
            event: Column::at(row, "event")?,
            subject: Column::at(row, "subject")?,
            actor: Column::at(row, "actor")?,
            detail: serde_json::from_str(&detail).map_err(|_| database::Error::Corrupt(detail))?,
            ring: Column::at(row, "ring")?,
        })
    }
}

/// Parts of a batch, each of a power of two: so a statement has few forms, which connections keep
/// prepared.
fn parts(mut entries: &[Entry]) -> impl Iterator<Item = &[Entry]> {
    iter::from_fn(move || {
        let length = 1 << entries.len().min(PART_MAX).checked_ilog2()?;
        let (part, rest) = entries.split_at(length);
        entries = rest;
        Some(part)
    })
}

/// Places for so many rows of five values.
fn places(rows: usize) -> String {
    let row = |row| {
        let first = 5 * row + 1;
        let places = (first..first + 5).map(|place| format!("${place}"));
        format!("({})", places.collect::<Vec<_>>().join(", "))
    };
    (0..rows).map(row).collect::<Vec<_>>().join(", ")
}

/// A pattern in which `*` stands for anything, as `LIKE` knows it.
fn like(pattern: &str) -> String {
    let escaped = pattern.replace('!', "!!").replace('%', "!%").replace('_', "!_");
    escaped.replace('*', "%")
}

#[cfg(test)]
mod tests {
    use berth_shared::{clock::Clock, subject::Subject};
    use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};

    use super::*;
    use crate::audit::Author;

    fn moment(seconds: i64) -> UnixSeconds {
        UnixSeconds::new(seconds)
    }

    async fn events(database: &Database, filter: &Filter) -> Vec<String> {
        let rows = database.list_rows(filter, 100).await.unwrap();
        rows.into_iter().map(|row| row.event).collect()
    }

    #[tokio::test]
    async fn a_filter_lets_through_what_all_of_its_parts_do() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::set(moment(100));
        let database = Database::open(&dir.path().join("auth.db")).await.unwrap();
        let database = database.acting(Author::server(clock.clone()));
        let (andrew, bea) = ("andrew".parse().unwrap(), "bea".parse().unwrap());
        database.record(&Act::UserAdd(&andrew)).await.unwrap();
        clock.advance(std::time::Duration::from_secs(10));
        database.record(&Act::UserPassword(&andrew)).await.unwrap();
        database.record(&Act::HtpasswdAdd(&bea)).await.unwrap();
        database.append_entries(&[Entry::gap(moment(120), 7)], 0).await.unwrap();
        let none = Filter::default();
        let all = ["user.add", "user.passwd", "htpasswd.add", "audit.gap"];
        assert_eq!(events(&database, &none).await, all);
        let some = |text: &str| Some(text.to_owned());
        for (filter, expected) in [
            (Filter { since: Some(moment(110)), ..none.clone() }, &all[1..]),
            (Filter { until: Some(moment(110)), ..none.clone() }, &all[..1]),
            (Filter { subject: some("andrew"), ..none.clone() }, &all[..2]),
            (Filter { subject: some("and%"), ..none.clone() }, &[]),
            (Filter { event: some("*.add"), subject: some("bea"), ..none.clone() }, &all[2..3]),
            (Filter { event: some("user"), ..none.clone() }, &[]),
            (Filter { event: some("user_add"), ..none.clone() }, &[]),
            (Filter { event: some("%!"), ..none.clone() }, &[]),
        ] {
            assert_eq!(events(&database, &filter).await, expected, "{filter:?}");
        }
        let newest = database.list_rows(&none, 2).await.unwrap();
        assert_eq!(newest[0].event, "htpasswd.add");
        assert_eq!(
            newest[1].line(),
            "{\"id\":4,\"at\":\"1970-01-01T00:02:00Z\",\"event\":\"audit.gap\",\"subject\":null,\
             \"lost\":7}\n"
        );
    }

    #[tokio::test]
    async fn rows_of_an_older_program_that_still_runs_have_numbers_among_the_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("auth.db");
        let database = Database::open(&path).await.unwrap();
        let database = database.acting(Author::server(Clock::set(moment(0))));
        let andrew = "andrew".parse().unwrap();
        let options = SqliteConnectOptions::new().filename(&path);
        let mut older = SqliteConnection::connect_with(&options).await.unwrap();
        for _ in 0..3 {
            // It leaves the number to the table.
            let insert = "INSERT INTO audit (at, event, detail) VALUES (0, 'audit.gap', '{}')";
            sqlx::query(insert).execute(&mut older).await.unwrap();
            database.record(&Act::UserAdd(&andrew)).await.unwrap();
            database.append_entries(&[Entry::gap(moment(0), 1)], 0).await.unwrap();
        }
        let rows = database.rows_after(0, 100).await.unwrap();
        assert!(rows.iter().map(|row| row.id).eq(1..=9));
    }

    #[test]
    fn a_batch_has_few_forms_and_loses_nothing() {
        for count in [0, 1, 2, 3, PART_MAX, PART_MAX + 1, 1000] {
            let entries: Vec<Entry> =
                (0..count).map(|at| Entry::gap(moment(at as i64), 1)).collect();
            let parts: Vec<&[Entry]> = parts(&entries).collect();
            assert!(parts.iter().all(|it| it.len().is_power_of_two() && it.len() <= PART_MAX));
            let written = parts.concat();
            let times = written.iter().map(|entry| entry.values().unwrap().0);
            assert!(times.eq((0..count as i64).map(UnixSeconds::new)));
        }
        assert_eq!(places(2), "($1, $2, $3, $4, $5), ($6, $7, $8, $9, $10)");
    }

    fn failed(known: Option<&str>, is_checked: bool) -> Entry {
        let known = known.map(|name| {
            let robot = name.parse().map(Subject::Robot);
            robot.unwrap_or_else(|_| Subject::User(name.parse().unwrap()))
        });
        let source = crate::audit::entry::Source::default();
        Entry::login_fail(moment(0), "wrong", known.as_ref(), None, source).checked(is_checked)
    }

    async fn kept(database: &Database) -> Vec<(String, i64)> {
        let rows = database.rows_after(0, 10_000).await.unwrap();
        let mut rings = std::collections::BTreeMap::<String, i64>::new();
        for row in rows {
            *rings.entry(row.ring).or_default() += 1;
        }
        let counted = sqlx::query_as("SELECT ring, rows FROM audit_rings WHERE rows > 0");
        let counted: Vec<(String, i64)> =
            counted.fetch_all(&mut *database.file().await.unwrap()).await.unwrap();
        assert_eq!(rings.into_iter().collect::<Vec<_>>(), counted, "the triggers count right");
        counted
    }

    #[tokio::test]
    async fn one_call_clears_a_bounded_part_of_all_rings_together() {
        let dir = tempfile::tempdir().unwrap();
        let database = Database::open(&dir.path().join("auth.db")).await.unwrap();
        for entry in [Entry::gap(moment(0), 1), failed(Some("andrew"), true)] {
            database.append_entries(&vec![entry; 15_000], 0).await.unwrap();
        }
        let keep = Kept { rows_max: 0, failure_rows_max: 0 };
        assert_eq!(database.clear_rows(keep, 0).await.unwrap(), 20_000);
        assert_eq!(database.rows_after(0, 100_000).await.unwrap().len(), 10_000);
        assert_eq!(database.clear_rows(keep, 0).await.unwrap(), 10_000);
        assert_eq!(database.clear_rows(keep, 0).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn what_clients_cause_without_end_pushes_out_no_act_and_no_guess() {
        let dir = tempfile::tempdir().unwrap();
        let database = Database::open(&dir.path().join("auth.db")).await.unwrap();
        let keep = Kept { rows_max: 20, failure_rows_max: 10 };
        database.record(&Act::UserAdd(&"andrew".parse().unwrap())).await.unwrap();
        let guesses = vec![failed(Some("andrew"), true); 3];
        database.append_entries(&guesses, 0).await.unwrap();
        for behind in [26, 50, 50] {
            database.append_entries(&vec![Entry::gap(moment(0), 1); 50], 0).await.unwrap();
            // Rows 5 to 8 are in the file; of the first 50 the oldest 30 go.
            assert_eq!(database.clear_rows(keep, 8).await.unwrap(), behind);
        }
        for (known, is_checked) in
            [(None, true), (Some("andrew"), false), (Some("robot.ci"), false), (None, false)]
        {
            database.append_entries(&vec![failed(known, is_checked); 50], i64::MAX).await.unwrap();
            database.clear_rows(keep, i64::MAX).await.unwrap();
        }
        let some = |ring: &str, rows| (ring.to_owned(), rows);
        let expected = [
            some("act", 1),
            some("guess", 3),
            some("issue", 20),
            some("nobody", 10),
            some("robot", 10),
            some("unchecked", 10),
        ];
        assert_eq!(kept(&database).await, expected);
        let rows = database.rows_after(0, 1000).await.unwrap();
        assert_eq!((rows[0].event.as_str(), rows[4].id), ("user.add", 135));
        // Guesses wash out guesses alone, the oldest first.
        database.append_entries(&vec![failed(Some("bea"), true); 9], i64::MAX).await.unwrap();
        database.clear_rows(keep, i64::MAX).await.unwrap();
        let rows = database.rows_after(0, 1000).await.unwrap();
        let guesses: Vec<_> = rows.iter().filter(|row| row.ring == "guess").collect();
        assert_eq!((guesses.len(), guesses[0].subject.as_deref()), (10, Some("andrew")));
        assert_eq!(kept(&database).await.len(), expected.len());
    }
}
