//! A database with much in every table that grows with use.

use std::path::{Path, PathBuf};

use berth_shared::digest::Digest;

use super::connect;
use crate::metadata::Database;

/// How many rows each table has.
pub(super) const ROWS: u32 = 100_000;

/// All of it is in one repository, `app`, so that the number of its rows counts as well; but for one
/// manifest in each of some others, and many that refer to one. Each manifest names the next one as its child.
const TABLES: [&str; 11] = [
    "INSERT INTO repositories (id, name) SELECT n, IIF(n = 1, 'app', printf('other/%06d', n))
     FROM numbers",
    "INSERT INTO blobs (digest, size, location, created, checked)
     SELECT digest, 1, printf('%032x', n), 1, 1 FROM numbers",
    "INSERT INTO repository_blobs (repository, digest, touched) SELECT 1, digest, 1 FROM numbers",
    "INSERT INTO manifests (repository, digest, media_type, subject, size, pushed, bytes)
     SELECT 1, digest, 'a/b', next, 2, 1, CAST('{}' AS BLOB) FROM numbers",
    "INSERT INTO manifests (repository, digest, media_type, size, pushed, bytes)
     SELECT n, digest, 'a/b', 2, 1, CAST('{}' AS BLOB) FROM numbers WHERE n BETWEEN 2 AND 2000",
    "INSERT INTO manifests
     (repository, digest, media_type, artifact_type, subject, size, pushed, bytes)
     SELECT 3000, digest, 'a/b', IIF(n % 1000, 'a/' || (n % 2), 'a/rare'),
     (SELECT digest FROM numbers WHERE n = 1), 2, 1, CAST('{}' AS BLOB)
     FROM numbers WHERE n < 20000",
    "INSERT INTO manifest_touches (repository, digest, touched) SELECT repository, digest, 1 FROM manifests",
    "INSERT INTO manifest_references (repository, manifest, digest, kind)
     SELECT 1, digest, next, 'child' FROM numbers",
    "INSERT INTO tags (repository, name, digest, updated)
     SELECT 1, 'tag' || n, digest, 1 FROM numbers",
    "INSERT INTO uploads (id, repository, subject, location, received, algorithm, started, touched)
     SELECT printf('%032x', n), 'app', 'andrew',
     printf('%032x', n + (SELECT MAX(n) FROM numbers)), 0, 'sha256', n, n FROM numbers",
    "INSERT INTO dead_objects (location, size, due)
     SELECT printf('%032x', n + 2 * (SELECT MAX(n) FROM numbers)), 1, n FROM numbers",
];

/// The `number`-th digest.
pub(super) fn digest(number: u32) -> Digest {
    format!("sha256:{number:064x}").parse().unwrap()
}

/// Makes it in `directory`, and gives the file, which holds all of it.
pub(super) async fn make(directory: &Path) -> PathBuf {
    let path = directory.join("large.db");
    let database = Database::open_without_durability(&path).await.unwrap();
    database.close().await;
    let mut connection = connect(&path).await;
    let numbers = "CREATE TEMP TABLE numbers AS WITH RECURSIVE count (n) AS (
             VALUES (1) UNION ALL SELECT n + 1 FROM count LIMIT $1)
         SELECT n, printf('sha256:%064x', n) AS digest, printf('sha256:%064x', n + 1) AS next
         FROM count";
    for statement in ["PRAGMA synchronous = OFF", "PRAGMA foreign_keys = OFF"] {
        sqlx::query(statement).execute(&mut connection).await.unwrap();
    }
    sqlx::query(numbers).bind(ROWS).execute(&mut connection).await.unwrap();
    sqlx::query("BEGIN").execute(&mut connection).await.unwrap();
    for statement in TABLES {
        sqlx::query(statement).execute(&mut connection).await.unwrap();
    }
    for statement in ["COMMIT", "PRAGMA wal_checkpoint(TRUNCATE)"] {
        sqlx::query(statement).execute(&mut connection).await.unwrap();
    }
    path
}
