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
struct OfSqlite {
    statement: &'static str,
    why: &'static str,
}

/// What is SQLite's own.
const OF_SQLITE: [OfSqlite; 10] = [
    OfSqlite { statement: "BEGIN IMMEDIATE", why: "the one writer takes its turn at once" },
    OfSqlite { statement: "SAVEPOINT work", why: "transactions are not prepared" },
    OfSqlite { statement: "RELEASE work", why: "the same" },
    OfSqlite { statement: "ROLLBACK", why: "the same" },
    OfSqlite { statement: "COMMIT", why: "the same" },
    OfSqlite { statement: "VACUUM INTO $1", why: "copies the file" },
    OfSqlite { statement: "PRAGMA integrity_check(1)", why: "looks through the file" },
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
    "SELECT 'column ' || t.name || '.' || c.name || ' ' || c.type
         || CASE WHEN c.\"notnull\" OR c.pk THEN ' required' ELSE '' END
     FROM sqlite_schema t JOIN pragma_table_info(t.name) c
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

/// Writes both files, where somebody asks for them, of all the program's `statements`.
pub(super) async fn write(statements: &BTreeSet<String>, connection: &mut SqliteConnection) {
    let (own, portable): (BTreeSet<&str>, BTreeSet<&str>) = statements
        .iter()
        .map(String::as_str)
        .partition(|statement| OF_SQLITE.iter().any(|it| statement.starts_with(it.statement)));
    for OfSqlite { statement, why } in OF_SQLITE {
        let is_told = own.iter().any(|own| own.starts_with(statement));
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
