//! Every statement that a server makes, and how SQLite goes about it: a part of both servers' own
//! tests.
//!
//! What is run is recorded, as sqlx tells it; what stands in the sources is read there, in those of the server and in what
//! both servers share for SQLite (what they share for PostgreSQL is said to that alone). Each must be the other: so nothing
//! is forgotten, and nothing is put together of parts that nobody sees.

mod literals;
pub(crate) mod portable;
mod recording;

use std::{collections::BTreeSet, path::Path};

use sqlx::{AssertSqlSafe, Row, SqliteConnection};

pub(crate) use recording::Recording;

/// A statement that reads all of a table which grows with use, or sorts, or seems to, and why it may.
pub(crate) struct ReadsAll {
    /// How it begins, or all of it: what is a whole statement stands for no longer one.
    pub(crate) statement: &'static str,
    /// Never on the writer of a server, nor on the way of a request.
    pub(crate) why: &'static str,
}

/// What neither has a plan nor reads a table.
const WITHOUT_PLAN: [&str; 8] = [
    "BEGIN",
    "COMMIT",
    "ROLLBACK",
    "SAVEPOINT",
    "RELEASE",
    "PRAGMA data_version",
    "PRAGMA journal_mode",
    "PRAGMA query_only",
];

/// What sqlx says by itself.
const OF_SQLX: [&str; 5] =
    ["_sqlx_migrations", "PRAGMA cache_size", "PRAGMA foreign_keys", "BEGIN", "-- "];

/// What is wrong with the statements of the sources, as they were run: one line each; and those
/// statements, but for those of tests and of sqlx, each in every form that was run. `connection` is
/// one to a database with much in its tables.
pub(crate) async fn complaints(
    run: &BTreeSet<String>,
    read_all: &[ReadsAll],
    connection: &mut SqliteConnection,
) -> (Vec<String>, BTreeSet<String>) {
    let tables = tables(connection).await;
    let stands_for = |it: &ReadsAll, statement: &str| {
        if run.contains(it.statement) {
            statement == it.statement
        } else {
            statement.starts_with(it.statement)
        }
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut own, mut of_tests) = literals::of(&root.join("src"));
    let shared = literals::of(&root.with_file_name("shared").join("src/sqlite"));
    own.extend(shared.0);
    of_tests.extend(shared.1);
    let (mut complaints, mut statements) = (Vec::new(), BTreeSet::new());
    for literal in &own {
        let as_run: Vec<&String> =
            run.iter().filter(|statement| literal.matches(statement)).collect();
        if as_run.is_empty() && !WITHOUT_PLAN.iter().any(|word| literal.begins_with(word)) {
            complaints.push(format!("was not run: {literal}"));
        }
        for statement in as_run {
            statements.insert(statement.clone());
            let reads_all = scans(connection, statement, &tables).await;
            let is_listed = read_all.iter().any(|it| stands_for(it, statement));
            if !reads_all.is_empty() && !is_listed {
                complaints.push(format!("reads all: {reads_all:?}: {statement}"));
            }
        }
    }
    for it in read_all {
        let is_run = run.iter().any(|statement| stands_for(it, statement));
        if !is_run || it.why.is_empty() {
            complaints.push(format!("is listed and not needed: {}", it.statement));
        }
    }
    let known: Vec<_> = own.iter().chain(&of_tests).collect();
    for statement in run.iter().filter(|statement| !statement.contains("pragma_foreign_key")) {
        let is_known = known.iter().any(|literal| literal.matches(statement));
        if !is_known && !OF_SQLX.iter().any(|own| statement.contains(own)) {
            complaints.push(format!("stands nowhere in the sources: {statement}"));
        }
    }
    (complaints, statements)
}

/// The tables that are ours and may have many rows.
async fn tables(connection: &mut SqliteConnection) -> Vec<String> {
    let names = "SELECT name FROM sqlite_schema
         WHERE type = 'table' AND name NOT GLOB '*sqlx*' AND name NOT GLOB 'sqlite*'
         AND sql NOT GLOB '*CHECK (id = 1)*'";
    sqlx::query_scalar(names).fetch_all(connection).await.unwrap()
}

/// The foreign keys that no index begins with: the deletion of what they lead to reads all rows.
pub(crate) async fn keys_without_index(connection: &mut SqliteConnection) -> Vec<String> {
    let keys = "SELECT DISTINCT t.name || ' (' || k.\"from\" || ')'
         FROM sqlite_schema t JOIN pragma_foreign_key_list(t.name) k
         WHERE t.type = 'table' AND NOT EXISTS (
             SELECT 1 FROM pragma_index_list(t.name) i JOIN pragma_index_info(i.name) c
             WHERE c.seqno = k.seq AND c.name = k.\"from\" AND i.partial = 0)";
    sqlx::query_scalar(keys).fetch_all(connection).await.unwrap()
}

/// The steps of the statement's plan that read all rows of one of `tables`, or all behind a place,
/// or sort them.
async fn scans(
    connection: &mut SqliteConnection,
    statement: &str,
    tables: &[String],
) -> Vec<String> {
    if WITHOUT_PLAN.iter().any(|word| statement.starts_with(word)) {
        return Vec::new();
    }
    if statement.starts_with("VACUUM") || statement.starts_with("PRAGMA") {
        return vec![statement.to_owned()];
    }
    let explained = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}"));
    let rows = sqlx::query(explained).fetch_all(connection).await;
    let rows = rows.unwrap_or_else(|error| panic!("{statement}: {error}"));
    let steps = rows.iter().map(|row| row.get::<String, _>("detail"));
    steps.filter(|step| reads_all(step, statement, tables)).collect()
}

fn reads_all(step: &str, statement: &str, tables: &[String]) -> bool {
    // Rows of one repository may be as many as those of all, and so may be those behind an id; what
    // skips over a part of a key or is sorted is read to its end, whatever is asked for.
    let parts = ["AUTOMATIC", "(repository=?)", "(rowid>?)", "ANY(", "USE TEMP B-TREE"];
    if parts.iter().any(|part| step.contains(part)) {
        return true;
    }
    let Some(scanned) = step.strip_prefix("SCAN ") else { return false };
    let name = scanned.split(' ').next().unwrap_or_default();
    let words: Vec<&str> =
        statement.split([' ', ',', '(', ')']).filter(|word| *word != "AS").collect();
    let is_alias_of =
        |table: &str| words.windows(2).any(|pair| pair[0] == table && pair[1] == name);
    tables.iter().any(|table| table == name || is_alias_of(table))
}
