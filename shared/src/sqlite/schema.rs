//! Whether a database has the tables, indexes, triggers and views that its program makes, and no
//! others: what a backup brings with it would act in the server's name.

use std::collections::BTreeMap;

use sqlx::{
    ConnectOptions, Connection, SqliteConnection, migrate::Migrator, sqlite::SqliteConnectOptions,
};

/// Tables and indexes that SQLite keeps for itself are none of anybody's making. How the table of
/// migrations is made is sqlx's affair, and changes with it.
const SCHEMA: &str = "SELECT type, name,
    IIF(type = 'table' AND name = '_sqlx_migrations', '', COALESCE(sql, '')) FROM sqlite_schema
    WHERE type NOT IN ('table', 'index') OR name NOT LIKE 'sqlite!_%' ESCAPE '!'";

/// What each thing is and is called, and how it was made.
type Schema = BTreeMap<(String, String), String>;

/// What is in the database and `migrations` do not make, or is missing in it; `None` when there is no
/// such thing. The database is one that has been migrated.
///
/// # Errors
/// When a database does not answer.
pub async fn foreign_schema(
    database: &mut SqliteConnection,
    migrations: &Migrator,
) -> Result<Option<String>, sqlx::Error> {
    let mut own = SqliteConnectOptions::new().in_memory(true).connect().await?;
    migrations.run_direct(None, &mut own, false).await?;
    let expected = schema(sqlx::query_as(SCHEMA).fetch_all(&mut own).await?);
    own.close().await?;
    let found = schema(sqlx::query_as(SCHEMA).fetch_all(database).await?);
    Ok(difference(&expected, &found))
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
