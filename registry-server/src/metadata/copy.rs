//! All rows of a database in a file of SQLite, and from there into PostgreSQL.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use berth_shared::{
    database::{Places, Record, Statements, no_answer},
    files::{directory_of, put_new, unfinished},
    sqlite,
};
use futures_util::{TryStreamExt, future::BoxFuture};
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection as _, PgConnection, SqliteConnection,
    postgres::PgArguments,
    sqlite::{SqliteArguments, SqliteJournalMode, SqliteSynchronous},
};
use tempfile::TempDir;
use tokio::time::timeout;

use super::{
    Database, Engine, Error,
    postgres::{Settings, connect_alone, look_at_schema},
    sqlite::{MIGRATIONS, options},
};

/// The tables, each behind those that it names. What servers say to each other is not copied.
const TABLES: [&str; 9] = [
    "repositories",
    "blobs",
    "repository_blobs",
    "manifests",
    "manifest_references",
    "manifest_touches",
    "tags",
    "uploads",
    "dead_objects",
];

/// Rows that go to PostgreSQL in one statement, and about how many bytes.
const ROWS: usize = 500;
const BYTES: usize = 4 << 20;

/// Many rows take as long as they take.
const WITHOUT_LIMIT: &str = "SET LOCAL statement_timeout = 0";

/// How much is copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    Whole,
    /// Without the bytes of manifests, which collection does not read.
    WithoutBytes,
}

/// A column, by what lies in it.
#[derive(Debug, Clone)]
struct Column {
    name: String,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Number,
    Text,
    Bytes,
}

impl Column {
    /// Takes the value out of its row into its place. Gives how many bytes it has, about.
    fn carry(&self, number: usize, row: &Record, to: &mut Places<'_>) -> Result<usize, Error> {
        Ok(match self.kind {
            Kind::Number => {
                to.add(row.get::<Option<i64>>(number)?)?;
                size_of::<i64>()
            }
            Kind::Text => {
                let text = row.get::<Option<String>>(number)?;
                let length = text.as_ref().map_or(0, String::len);
                to.add(text)?;
                length
            }
            Kind::Bytes => {
                let bytes = row.get::<Option<Vec<u8>>>(number)?;
                let length = bytes.as_ref().map_or(0, Vec::len);
                to.add(bytes)?;
                length
            }
        })
    }
}

/// A table, as the file has it; PostgreSQL has the same.
struct Table {
    name: &'static str,
    columns: Vec<Column>,
}

impl Table {
    async fn of(file: &mut SqliteConnection, name: &'static str) -> Result<Self, Error> {
        let statement = "SELECT name, type FROM pragma_table_info($1)";
        let columns: Vec<(String, String)> = file.all(statement, name).await?;
        let kind = |kind: &str| match kind {
            "INTEGER" | "BIGINT" => Kind::Number,
            "BLOB" => Kind::Bytes,
            _ => Kind::Text,
        };
        let columns = columns.into_iter().map(|(name, of)| Column { name, kind: kind(&of) });
        Ok(Self { name, columns: columns.collect() })
    }

    /// Takes all values out of a row.
    fn carry(&self, row: &Record, to: &mut Places<'_>) -> Result<usize, Error> {
        let columns = self.columns.iter().enumerate();
        columns.map(|(number, column)| column.carry(number, row, to)).sum()
    }

    fn names(&self) -> String {
        let names: Vec<&str> = self.columns.iter().map(|column| column.name.as_str()).collect();
        names.join(", ")
    }

    fn select(&self, extent: Extent) -> String {
        let of = |column: &Column| match (column.kind, extent) {
            (Kind::Bytes, Extent::WithoutBytes) => format!("CAST('' AS BYTEA) AS {}", column.name),
            _ => column.name.clone(),
        };
        let columns: Vec<String> = self.columns.iter().map(of).collect();
        format!("SELECT {} FROM {}", columns.join(", "), self.name)
    }

    /// So many rows.
    fn insert(&self, rows: usize) -> String {
        let row = |number: usize| {
            let first = number * self.columns.len();
            let places = (1..=self.columns.len()).map(|place| format!("${}", first + place));
            format!("({})", places.collect::<Vec<_>>().join(", "))
        };
        let rows: Vec<String> = (0..rows).map(row).collect();
        format!("INSERT INTO {} ({}) VALUES {}", self.name, self.names(), rows.join(", "))
    }
}

/// Copies what is in PostgreSQL at one moment. An answer is waited for so long.
async fn to_file(
    from: &mut PgConnection,
    file: &mut SqliteConnection,
    extent: Extent,
    answer_time: Duration,
) -> Result<(), Error> {
    const READ: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
    let mut from = from.begin_with(READ).await.map_err(Error::of_postgres)?;
    sqlx::query(WITHOUT_LIMIT).execute(&mut *from).await.map_err(Error::of_postgres)?;
    let mut file = file.begin().await?;
    for name in TABLES {
        let table = Table::of(&mut file, name).await?;
        let insert = table.insert(1);
        let mut rows = sqlx::query(AssertSqlSafe(table.select(extent))).fetch(&mut *from);
        loop {
            let row = timeout(answer_time, rows.try_next()).await;
            let row = row.unwrap_or_else(|_| Err(no_answer())).map_err(Error::of_postgres)?;
            let Some(row) = row else { break };
            let (row, mut places) = (Record::Postgres(row), SqliteArguments::default());
            table.carry(&row, &mut Places::Sqlite(&mut places))?;
            let insert = AssertSqlSafe(insert.clone());
            sqlx::query_with(insert, places).execute(&mut *file).await?;
        }
    }
    Ok(file.commit().await?)
}

/// Copies all of the file into tables that have nothing in them, or nothing of it.
async fn to_server(file: &mut SqliteConnection, to: &mut PgConnection) -> Result<(), Error> {
    let mut to = to.begin().await.map_err(Error::of_postgres)?;
    let lock = format!("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE", TABLES.join(", "));
    for statement in [WITHOUT_LIMIT.to_owned(), lock] {
        let done = sqlx::query(AssertSqlSafe(statement)).execute(&mut *to).await;
        done.map_err(Error::of_postgres)?;
    }
    let is_bare = sqlx::query_scalar(AssertSqlSafe(bare())).fetch_one(&mut *to).await;
    if !is_bare.map_err(Error::of_postgres)? {
        return Err(Error::Unfit("the database has been written to meanwhile".to_owned()));
    }
    for name in TABLES {
        let table = Table::of(file, name).await?;
        let mut rows = sqlx::query(AssertSqlSafe(table.select(Extent::Whole))).fetch(&mut *file);
        let mut page = Page::default();
        while let Some(row) = rows.try_next().await? {
            page.add(&table, &Record::Sqlite(row))?;
            if page.rows >= ROWS || page.bytes >= BYTES {
                std::mem::take(&mut page).write(&table, &mut to).await?;
            }
        }
        page.write(&table, &mut to).await?;
    }
    // The next repository gets a number that none of these has.
    let next = "SELECT setval(pg_get_serial_sequence('repositories', 'id'),
                              (SELECT MAX(id) FROM repositories))";
    sqlx::query(next).execute(&mut *to).await.map_err(Error::of_postgres)?;
    to.commit().await.map_err(Error::of_postgres)
}

/// Rows that are on their way to PostgreSQL.
#[derive(Default)]
struct Page {
    places: PgArguments,
    rows: usize,
    bytes: usize,
}

impl Page {
    fn add(&mut self, table: &Table, row: &Record) -> Result<(), Error> {
        self.bytes += table.carry(row, &mut Places::Postgres(&mut self.places))?;
        self.rows += 1;
        Ok(())
    }

    async fn write(self, table: &Table, to: &mut PgConnection) -> Result<(), Error> {
        if self.rows == 0 {
            return Ok(());
        }
        let insert = AssertSqlSafe(table.insert(self.rows));
        let inserted = sqlx::query_with(insert, self.places).execute(to).await;
        inserted.map(drop).map_err(Error::of_postgres)
    }
}

/// Asks whether no table has a row.
fn bare() -> String {
    let tables = TABLES.map(|name| format!("NOT EXISTS (SELECT 1 FROM {name})"));
    format!("SELECT {}", tables.join(" AND "))
}

/// Writes what is in PostgreSQL to a new file, durably, which gets its name when it is whole.
async fn write_file(from: &Settings, to: &Path, extent: Extent) -> Result<(), Error> {
    let schema = look_at_schema(from).await?;
    // What this program does not know of, it would leave out.
    if schema.version > schema.known {
        return Err(Error::Newer);
    }
    let failed = |error| sqlite::Error::File(to.to_owned(), error);
    let unfinished = unfinished(to, 0o600).map_err(failed)?;
    let options = options(unfinished.path())
        .journal_mode(SqliteJournalMode::Memory)
        .synchronous(SqliteSynchronous::Off);
    let mut file = options.connect().await?;
    // `run` does not compile in a future that is sent to another thread.
    MIGRATIONS.run_direct(None, &mut file, false).await.map_err(Error::Migrate)?;
    let mut connection = connect_alone(from).await?;
    to_file(&mut connection, &mut file, extent, from.server.answer_time()).await?;
    file.close().await?;
    Ok(put_new(unfinished, to).map_err(failed)?)
}

impl Database {
    /// Writes a consistent copy of the database, as it is now, to the new file `to`, and makes it
    /// durable. Nobody waits for it.
    ///
    /// # Errors
    /// When the file is there already, or cannot be written.
    pub fn snapshot(&self, to: PathBuf) -> BoxFuture<'static, Result<(), Error>> {
        self.write_copy(to, Extent::Whole)
    }

    fn write_copy(&self, to: PathBuf, extent: Extent) -> BoxFuture<'static, Result<(), Error>> {
        let (readers, engine) = (self.readers.clone(), self.engine.clone());
        Box::pin(async move {
            match engine {
                Engine::Sqlite { .. } => {
                    let mut reader = readers.get().await?;
                    Ok(sqlite::snapshot(reader.sqlite()?, &to).await?)
                }
                Engine::Postgres(writer) => write_file(writer.settings(), &to, extent).await,
            }
        })
    }

    /// A copy of the database for a dry run, in a directory of its own, which lasts as long as the
    /// result.
    pub(crate) async fn copy(&self) -> Result<(Self, TempDir), Error> {
        let beside = match &self.engine {
            Engine::Sqlite { path, .. } => directory_of(path),
            Engine::Postgres(writer) => &writer.settings().copies,
        };
        let directory =
            tempfile::Builder::new().prefix("copy-").tempdir_in(beside).map_err(sqlx::Error::Io)?;
        let path = directory.path().join("registry.db");
        self.write_copy(path.clone(), Extent::WithoutBytes).await?;
        Ok((Self::open(&path).await?, directory))
    }

    /// Whether there is no row in it.
    pub(crate) async fn is_bare(&self) -> Result<bool, Error> {
        self.reader().await?.one(AssertSqlSafe(bare()), ()).await
    }

    /// Takes all rows of a file into PostgreSQL, where there are none.
    ///
    /// # Errors
    /// When there are some, or either does not answer.
    pub(crate) fn fill(&self, from: &Self) -> BoxFuture<'static, Result<(), Error>> {
        let (readers, engine) = (from.readers.clone(), self.engine.clone());
        Box::pin(async move {
            let Engine::Postgres(writer) = engine else { return Err(Error::OfSqlite) };
            let mut file = readers.get().await?;
            let mut connection = connect_alone(writer.settings()).await?;
            to_server(file.sqlite()?, &mut connection).await
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn no_table_is_left_out() {
        let directory = tempfile::tempdir().unwrap();
        let database = Database::open(&directory.path().join("registry.db")).await.unwrap();
        let statement = "SELECT name FROM sqlite_schema WHERE type = 'table'
             AND name NOT IN ('state', 'leases', 'totals', '_sqlx_migrations') AND name NOT LIKE 'sqlite%'";
        let mut tables: Vec<String> =
            database.reader().await.unwrap().all(statement, ()).await.unwrap();
        let mut copied = TABLES.map(str::to_owned);
        tables.sort();
        copied.sort();
        assert_eq!(tables, copied);
    }
}
