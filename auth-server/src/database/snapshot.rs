//! A database that is not open, and may be of any version.

use std::path::Path;

use berth_shared::sqlite::BUSY_TIMEOUT;
use sqlx::{ConnectOptions, Connection, sqlite::SqliteConnectOptions};

/// The sequence in the database at `path`, whatever version wrote it; `None` when it cannot be
/// read.
pub async fn last_sequence(path: &Path) -> Option<i64> {
    let options = SqliteConnectOptions::new().filename(path).busy_timeout(BUSY_TIMEOUT);
    let mut connection = options.connect().await.ok()?;
    let query = sqlx::query_scalar("SELECT value FROM sequence");
    let value = query.fetch_one(&mut connection).await.ok();
    connection.close().await.ok()?;
    value
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[tokio::test]
    async fn what_is_no_database_has_no_sequence() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("auth.db");
        assert_eq!(last_sequence(&path).await, None);
        assert!(!path.exists());
        fs::write(&path, "this is no database, however long it may be").unwrap();
        assert_eq!(last_sequence(&path).await, None);
    }
}
