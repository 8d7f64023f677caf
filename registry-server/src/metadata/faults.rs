//! A database whose N-th step fails, for tests.

use std::{path::Path, sync::Arc};

use berth_shared::database::Statements;
use sqlx::{ConnectOptions, Connection, sqlite::SqliteConnectOptions};

use super::{
    Cache, Database, Engine, Error, Writer, options,
    readers::{self, Readers},
};
use crate::faults::Faults;

/// After how many steps of SQLite's machine the handler is asked: a few times per statement.
const STEPS: i32 = 10;

impl Database {
    /// Opens a database that is there, all of whose connections fail when `faults` says so: in the
    /// middle of a statement, or at a commit.
    pub(crate) async fn open_faulty(path: &Path, faults: &Faults) -> Result<Self, Error> {
        let options = options(path);
        let mut writer = options.connect().await?;
        let (progress, commit) = (faults.clone(), faults.clone());
        writer.lock_handle().await?.set_commit_hook(move || commit.step());
        let faults = faults.clone();
        let pool = readers::pool(&Arc::default()).after_connect(move |reader, _| {
            let faults = faults.clone();
            Box::pin(async move {
                let mut handle = reader.lock_handle().await?;
                handle.set_progress_handler(STEPS, move || faults.step());
                Ok(())
            })
        });
        let read_only = options.read_only(true).create_if_missing(false);
        let readers = Readers::connect(pool, read_only).await?;
        let cache = Arc::new(Cache::new());
        let step = move || progress.step();
        let writer = Writer::start_checked(writer, Arc::clone(&cache), STEPS, step).await?;
        let engine = Engine::Sqlite { path: path.into(), closing: Arc::default(), writer };
        Ok(Self { readers, engine, cache })
    }

    /// Makes a database of what statements say, that another program wrote.
    pub(crate) async fn make_from(path: &Path, statements: &'static str) {
        let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
        let mut connection = options.foreign_keys(false).connect().await.unwrap();
        sqlx::raw_sql(statements).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }

    /// Writes what no program of ours writes.
    pub(crate) async fn spoil(&self, statement: &'static str) {
        let mut connection = options(self.path().expect("a file")).connect().await.unwrap();
        sqlx::query(statement).execute(&mut connection).await.unwrap();
        // One that is dropped ends some time later, and the journal with it.
        connection.close().await.unwrap();
    }

    /// What breaks the schema's own rules: those that the engine keeps by itself, and those of manifests.
    pub(crate) async fn broken_rules(&self) -> Result<Vec<String>, Error> {
        let mut reader = self.reader().await?;
        let mut broken = match self.path() {
            Some(_) => reader.all("SELECT \"table\" FROM pragma_foreign_key_check", ()).await?,
            None => Vec::new(),
        };
        let dangling = "SELECT m.digest FROM manifest_references m
             WHERE m.kind IN ('config', 'layer') AND NOT EXISTS (
                 SELECT 1 FROM repository_blobs l JOIN blobs b ON b.digest = l.digest
                 WHERE l.repository = m.repository AND l.digest = m.digest)";
        broken.extend(reader.all::<String>(dangling, ()).await?);
        Ok(broken)
    }

    /// How many times a manifest names one that is not there.
    pub(crate) async fn dangling(&self) -> Result<u64, Error> {
        let query =
            "SELECT COUNT(*) FROM manifest_references r WHERE r.kind IN ('child', 'subject')
                     AND NOT EXISTS (SELECT 1 FROM manifests m
                                     WHERE m.repository = r.repository AND m.digest = r.digest)";
        self.reader().await?.one(query, ()).await
    }

    /// How many blobs, upload sessions and manifests there are.
    pub(crate) async fn rows(&self) -> Result<(u64, u64, u64), Error> {
        let query = "SELECT (SELECT COUNT(*) FROM blobs), (SELECT COUNT(*) FROM uploads),
                     (SELECT COUNT(*) FROM manifests)";
        self.reader().await?.one(query, ()).await
    }
}
