//! Copies of the database while it is in use: whole or not there, and for their owner alone.

use std::path::Path;

use sqlx::{ConnectOptions, Connection, sqlite::SqliteConnectOptions};

use super::sqlite::BUSY_TIMEOUT;

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
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::{super::store::Store, *};

    #[tokio::test]
    async fn a_copy_is_private_whole_and_never_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("auth.db")).await.unwrap();
        let to = dir.path().join("copy.db");
        store.snapshot(&to).await.unwrap();
        assert_eq!(fs::metadata(&to).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(last_sequence(&to).await, Some(0));
        fs::write(&to, "another").unwrap();
        assert!(store.snapshot(&to).await.is_err());
        assert_eq!(fs::read(&to).unwrap(), b"another");
        let names = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
        assert!(!names.into_iter().any(|name| name.to_string_lossy().starts_with(".unfinished")));
    }

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
