//! Whether a database has the tables, indexes, triggers and views that this program makes, and no
//! others: what a backup brings with it would act in the server's name.

use std::collections::BTreeMap;

use sqlx::{ConnectOptions, Connection, sqlite::SqliteConnectOptions};

use super::MIGRATIONS;
use crate::metadata::{Database, Error};

/// Tables and indexes that SQLite keeps for itself are none of anybody's making. How the table of
/// migrations is made is sqlx's affair, and changes with it.
const SCHEMA: &str = "SELECT type, name,
    IIF(type = 'table' AND name = '_sqlx_migrations', '', COALESCE(sql, '')) FROM sqlite_schema
    WHERE type NOT IN ('table', 'index') OR name NOT LIKE 'sqlite!_%' ESCAPE '!'";

/// What each thing is and is called, and how it was made.
type Schema = BTreeMap<(String, String), String>;

impl Database {
    /// What is in the database and is not of this program's making, or is missing in it; `None` when
    /// there is no such thing. The database is one that has been migrated.
    ///
    /// # Errors
    /// When a database does not answer.
    pub(crate) async fn foreign_schema(&self) -> Result<Option<String>, Error> {
        let mut own = SqliteConnectOptions::new().in_memory(true).connect().await?;
        MIGRATIONS.run_direct(None, &mut own, false).await.map_err(Error::Migrate)?;
        let expected = schema(sqlx::query_as(SCHEMA).fetch_all(&mut own).await?);
        own.close().await?;
        let found = schema(sqlx::query_as(SCHEMA).fetch_all(&mut *self.reader().await?).await?);
        Ok(difference(&expected, &found))
    }
}

fn schema(rows: Vec<(String, String, String)>) -> Schema {
    rows.into_iter().map(|(kind, name, sql)| ((kind, name), sql)).collect()
}

fn difference(expected: &Schema, found: &Schema) -> Option<String> {
    let foreign = found.iter().find_map(|(it, sql)| match expected.get(it) {
        None => Some(("a", it)),
        Some(own) => Some(("another", it)).filter(|_| own != sql),
    });
    let missing = || expected.keys().find(|it| !found.contains_key(it)).map(|it| ("no", it));
    foreign.or_else(missing).map(|(what, (kind, name))| format!("{what} {kind} {name:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whatever_is_not_of_our_making_is_named() {
        for (statement, what) in [
            ("CREATE VIEW planted AS SELECT 1", Some("a view \"planted\"")),
            ("ALTER TABLE _sqlx_migrations ADD COLUMN of_a_later_sqlx TEXT", None),
            (
                "CREATE TRIGGER planted AFTER UPDATE ON _sqlx_migrations BEGIN SELECT 1; END",
                Some("a trigger \"planted\""),
            ),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("registry.db");
            Database::open(&path).await.unwrap().close().await;
            let options = SqliteConnectOptions::new().filename(&path);
            let mut connection = options.connect().await.unwrap();
            sqlx::query(statement).execute(&mut connection).await.unwrap();
            connection.close().await.unwrap();
            let database = Database::open(&path).await.unwrap();
            assert_eq!(database.foreign_schema().await.unwrap().as_deref(), what, "{statement}");
        }
    }

    #[test]
    fn what_is_there_differs_or_is_missing() {
        let schema = |rows: &[(&str, &str)]| {
            rows.iter()
                .map(|(name, sql)| (("table".into(), (*name).into()), (*sql).into()))
                .collect()
        };
        let own = schema(&[("a", "1"), ("b", "2")]);
        for (rows, found) in [
            (&[("a", "1"), ("b", "2")][..], None),
            (&[("a", "1"), ("b", "2"), ("c", "3")], Some("a table \"c\"")),
            (&[("a", "1"), ("b", "3")], Some("another table \"b\"")),
            (&[("a", "1")], Some("no table \"b\"")),
        ] {
            assert_eq!(difference(&own, &schema(rows)).as_deref(), found);
        }
    }
}
