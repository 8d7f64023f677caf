//! What another database has to understand: `tests/interop/postgres.sh` prepares it on PostgreSQL.
//!
//! Where `BERTH_SQL_DIR` names a directory, the test writes two files into it: `statements`, which
//! has each statement of the program on a line, and `schema`, which says what the migrations of
//! SQLite make.

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
};

use sqlx::SqliteConnection;

/// A statement that only SQLite is told, by how it begins.
pub(crate) struct OfSqlite {
    pub(crate) statement: &'static str,
    pub(crate) why: &'static str,
}

/// What is SQLite's own in both servers.
const OF_BOTH: [OfSqlite; 5] = [
    OfSqlite { statement: "VACUUM INTO $1", why: "copies the file" },
    OfSqlite { statement: "PRAGMA integrity_check", why: "looks through the file" },
    OfSqlite {
        statement: "SELECT EXISTS (SELECT 1 FROM sqlite_master",
        why: "asks a file whether it is a database of ours",
    },
    OfSqlite {
        statement: "SELECT COALESCE(MAX(version), 0) FROM _sqlx_migrations",
        why: "the table is sqlx's, which makes it in each database's own words",
    },
    OfSqlite {
        statement: "SELECT type, name, IIF(type = 'table' AND name = '_sqlx_migrations'",
        why: "looks at what a backup brings with it, which is a file",
    },
];

/// What the schema has: a line for each column, key, index and reference.
const SCHEMA: [&str; 5] = [
    "SELECT 'column ' || t.name || '.' || c.name || ' '
         || CASE c.type WHEN 'BIGINT' THEN 'INTEGER' ELSE c.type END
         || CASE WHEN c.\"notnull\" OR c.pk THEN ' required' ELSE '' END
         || CASE WHEN c.hidden > 1 THEN ' generated' ELSE '' END
     FROM sqlite_schema t JOIN pragma_table_xinfo(t.name) c
     WHERE t.type = 'table' AND t.name NOT GLOB 'sqlite*' AND t.name NOT GLOB '*sqlx*'",
    "SELECT 'key ' || t.name || ' (' || GROUP_CONCAT(c.name, ', ' ORDER BY c.pk) || ')'
     FROM sqlite_schema t JOIN pragma_table_info(t.name) c
     WHERE t.type = 'table' AND c.pk > 0 AND t.name NOT GLOB '*sqlx*' GROUP BY t.name",
    "SELECT 'unique ' || t.name || ' (' || GROUP_CONCAT(c.name, ', ' ORDER BY c.seqno) || ')'
     FROM sqlite_schema t JOIN pragma_index_list(t.name) i JOIN pragma_index_info(i.name) c
     WHERE t.type = 'table' AND i.origin = 'u' GROUP BY t.name, i.name",
    "SELECT 'reference ' || t.name || ' (' || GROUP_CONCAT(k.\"from\", ', ' ORDER BY k.seq)
         || ') to ' || k.\"table\" || ' (' || GROUP_CONCAT(k.\"to\", ', ' ORDER BY k.seq) || ') '
         || k.on_delete
     FROM sqlite_schema t JOIN pragma_foreign_key_list(t.name) k
     WHERE t.type = 'table' GROUP BY t.name, k.id",
    "SELECT 'index ' || i.name || ' on ' || i.tbl_name || ' ('
         || (SELECT GROUP_CONCAT(c.name, ', ' ORDER BY c.seqno) FROM pragma_index_info(i.name) c)
         || ')' || CASE WHEN INSTR(i.sql, 'WHERE ')
                   THEN ' where ' || SUBSTR(i.sql, INSTR(i.sql, 'WHERE ') + 6) ELSE '' END
     FROM sqlite_schema i WHERE i.type = 'index' AND i.sql IS NOT NULL",
];

/// Writes both files, where somebody asks for them, of all the program's `statements`, but for those
/// that are SQLite's `own`.
pub(crate) async fn write(
    statements: &BTreeSet<String>,
    own: &[OfSqlite],
    connection: &mut SqliteConnection,
) {
    let of_sqlite = || OF_BOTH.iter().chain(own);
    let (told, portable): (BTreeSet<&str>, BTreeSet<&str>) = statements
        .iter()
        .map(String::as_str)
        .partition(|statement| of_sqlite().any(|it| statement.starts_with(it.statement)));
    for OfSqlite { statement, why } in of_sqlite() {
        let is_told = told.iter().any(|told| told.starts_with(statement));
        assert!(is_told && !why.is_empty(), "is listed and not needed: {statement}");
    }
    let Some(directory) = env::var_os("BERTH_SQL_DIR").map(PathBuf::from) else { return };
    write_lines(&directory.join("statements"), portable);
    let mut schema = BTreeSet::new();
    for part in SCHEMA {
        let lines: Vec<String> =
            sqlx::query_scalar(part).fetch_all(&mut *connection).await.unwrap();
        schema.extend(lines);
    }
    write_lines(&directory.join("schema"), schema.iter().map(String::as_str));
}

fn write_lines<'l>(path: &Path, lines: impl IntoIterator<Item = &'l str>) {
    let lines: String = lines.into_iter().map(|line| format!("{line}\n")).collect();
    fs::write(path, lines).unwrap();
}
