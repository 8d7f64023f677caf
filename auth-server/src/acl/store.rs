//! The database file, and the policy as it stands in it now.
//!
//! `authctl` writes to the same file while the server runs. SQLite's `PRAGMA data_version` changes
//! whenever another connection has committed, so one look before each use (some 50 µs) is enough
//! to see every change with the next request. Requests that wait for a look share the next one that
//! begins, since it sees all that was there when they came. The pragma does not notice the
//! connection's own commits, so the connection that looks never writes. Most commits are rows of
//! the audit: triggers count those that touch what the policy is read from, and only then is it
//! read again.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use berth_shared::clock::Clock;
use sqlx::{Connection, SqliteConnection};
use tokio::sync::Mutex;

use super::{
    Error,
    policy::Policy,
    sqlite::{FileIdentity, connect, create, data_version, identity, migrate, migration_lock},
};
use crate::audit::Author;

/// An open database.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    file: FileIdentity,
    pub(super) reader: Mutex<Reader>,
    /// How many looks at the database have begun.
    looks: AtomicU64,
    /// How many times it was read again.
    reads: AtomicU64,
    pub(super) writer: Mutex<SqliteConnection>,
    /// Whose acts are done through this handle.
    pub(super) author: Author,
}

#[derive(Debug)]
pub(super) struct Reader {
    pub(super) connection: SqliteConnection,
    /// What the connection saw of commits by others, of whatever.
    data_version: i64,
    /// What the policy was read at.
    policy_version: i64,
    policy: Arc<Policy>,
    /// The look that came to its end last, by its place among those that began.
    looked: u64,
}

impl Store {
    /// Opens the database at `path`, and makes it or brings it up to date first.
    ///
    /// # Errors
    /// When it cannot be opened, or a newer version of Berth has written to it.
    pub async fn open(path: &Path) -> Result<Self, Error> {
        let failed = |source: std::io::Error| Error::Open {
            path: path.to_owned(),
            source: Box::new(source),
        };
        create(path).map_err(failed)?;
        let file = identity(path).map_err(failed)?;
        let mut writer = connect(path).await?;
        // Server and authctl may both be the first to open it.
        let lock = migration_lock(path).map_err(failed)?;
        migrate(&mut writer, path).await?;
        drop(lock);
        let mut connection = connect(path).await?;
        let data_version = data_version(&mut connection).await?;
        let policy_version = policy_version(&mut connection).await?;
        let policy = Arc::new(Policy::read(&mut connection).await?);
        let reader = Reader { connection, data_version, policy_version, policy, looked: 0 };
        Ok(Self {
            path: path.to_owned(),
            file,
            reader: Mutex::new(reader),
            looks: AtomicU64::new(0),
            reads: AtomicU64::new(0),
            writer: Mutex::new(writer),
            author: Author::process(Clock::system()),
        })
    }

    /// The same database, with what is done through it written down as done by `author`.
    #[must_use]
    pub fn acting(self, author: Author) -> Self {
        Self { author, ..self }
    }

    /// Looks through the whole database.
    ///
    /// # Errors
    /// When it is damaged.
    pub async fn check(&self) -> Result<(), Error> {
        let found: String = sqlx::query_scalar("PRAGMA integrity_check")
            .fetch_one(&mut *self.writer.lock().await)
            .await?;
        if found == "ok" { Ok(()) } else { Err(Error::Damaged(found)) }
    }

    /// From now on nothing can be written, as on a full disk.
    #[cfg(test)]
    pub(crate) async fn refuse_writes(&self) {
        let pragma = sqlx::query("PRAGMA query_only = ON");
        pragma.execute(&mut *self.writer.lock().await).await.unwrap();
    }

    /// Closes the database, and leaves one file of it.
    ///
    /// # Errors
    /// When what was written cannot be brought into that file.
    pub async fn close(self) -> Result<(), Error> {
        self.reader.into_inner().connection.close().await?;
        let mut writer = self.writer.into_inner();
        sqlx::query("PRAGMA journal_mode = DELETE").execute(&mut writer).await?;
        Ok(writer.close().await?)
    }

    /// The policy as it stands in the database now.
    ///
    /// # Errors
    /// When the database does not answer, or is no longer the file that was opened: changes to the
    /// new one would never be seen.
    pub async fn policy(&self) -> Result<Arc<Policy>, Error> {
        if identity(&self.path).ok() != Some(self.file) {
            return Err(Error::Replaced(self.path.clone()));
        }
        let begun = self.looks.load(Ordering::SeqCst);
        let mut reader = self.reader.lock().await;
        if reader.looked > begun {
            // A look that began after this call has come to its end while this one waited: whatever
            // was changed before the call, it has seen.
            return Ok(Arc::clone(&reader.policy));
        }
        let look = self.looks.fetch_add(1, Ordering::SeqCst) + 1;
        // Both are taken before the rules are read: a commit in between is seen again next time.
        let data_version = data_version(&mut reader.connection).await?;
        if data_version != reader.data_version {
            let policy_version = policy_version(&mut reader.connection).await?;
            if policy_version != reader.policy_version {
                reader.policy = Arc::new(Policy::read(&mut reader.connection).await?);
                reader.policy_version = policy_version;
                self.reads.fetch_add(1, Ordering::Relaxed);
            }
            reader.data_version = data_version;
        }
        reader.looked = look;
        Ok(Arc::clone(&reader.policy))
    }

    /// How many looks at the database there were, and how many found that it had changed.
    pub(crate) fn looks_and_reads(&self) -> (u64, u64) {
        (self.looks.load(Ordering::Relaxed), self.reads.load(Ordering::Relaxed))
    }
}

async fn policy_version(connection: &mut SqliteConnection) -> Result<i64, Error> {
    Ok(sqlx::query_scalar("SELECT value FROM policy_version").fetch_one(connection).await?)
}

#[cfg(test)]
mod tests {
    use std::{fs, task::Poll};

    use berth_shared::rights::Effect;
    use sqlx::migrate::Migrator;

    use super::{super::sqlite::MIGRATIONS, *};

    #[tokio::test]
    async fn a_database_of_a_newer_version_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("auth.db");
        let store = Store::open(&path).await.unwrap();
        sqlx::query(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
             VALUES (9999, 'later', TRUE, X'00', 0)",
        )
        .execute(&mut *store.writer.lock().await)
        .await
        .unwrap();
        drop(store);
        assert!(matches!(Store::open(&path).await, Err(Error::Newer(_))));
    }

    #[tokio::test]
    async fn an_older_database_is_copied_and_then_migrated() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("auth.db");
        // As the first version wrote it.
        let first = MIGRATIONS.iter().filter(|migration| migration.version == 1);
        let first = Migrator::with_migrations(first.cloned().collect());
        create(&path).unwrap();
        let mut connection = connect(&path).await.unwrap();
        first.run_direct(None, &mut connection, false).await.unwrap();
        sqlx::query(
            "INSERT INTO grants (grantee, pattern, actions, created)
             VALUES ('andrew', 'team/**', 'push', 0)",
        )
        .execute(&mut connection)
        .await
        .unwrap();
        connection.close().await.unwrap();
        let policy = Store::open(&path).await.unwrap().policy().await.unwrap();
        let rules = policy.rules();
        assert_eq!(rules.len(), 1);
        assert_eq!(
            (rules[0].effect, rules[0].actions.to_string().as_str()),
            (Effect::Allow, "push")
        );
        assert!(dir.path().join("auth.db.version-1").exists());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn looks_are_shared_and_no_call_misses_a_change_made_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("auth.db");
        let store = Arc::new(Store::open(&path).await.unwrap());
        // Others ask all the time, so that calls wait and share looks.
        let asking: Vec<_> = (0..8)
            .map(|_| {
                let store = Arc::clone(&store);
                tokio::spawn(async move {
                    loop {
                        store.policy().await.unwrap();
                    }
                })
            })
            .collect();
        let mut other = connect(&path).await.unwrap();
        for n in 1..=200_u64 {
            let raise = sqlx::query("UPDATE sequence SET value = value + 1");
            raise.execute(&mut other).await.unwrap();
            let seen = store.policy().await.unwrap().sequence;
            assert!(seen >= n, "{seen} after {n}");
        }
        asking.iter().for_each(tokio::task::JoinHandle::abort);
        let (looks, reads) = store.looks_and_reads();
        assert!(reads <= looks && reads >= 1, "{reads} of {looks}");
    }

    #[tokio::test]
    async fn a_call_that_is_given_up_leaves_its_look_to_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("auth.db");
        // The database's thread may answer before it is asked whether it has.
        let store = loop {
            let store = Store::open(&path).await.unwrap();
            let has_only_begun = {
                let mut given_up = std::pin::pin!(store.policy());
                std::future::poll_fn(|cx| Poll::Ready(given_up.as_mut().poll(cx).is_pending()))
                    .await
            };
            if has_only_begun {
                break store;
            }
        };
        assert_eq!(store.reader.lock().await.looked, 0);
        store.policy().await.unwrap();
        assert_eq!(store.reader.lock().await.looked, 2);
    }

    /// Each act on a store of its own, as `authctl` acts beside the server.
    #[tokio::test]
    async fn the_policy_is_read_again_for_acts_and_for_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("auth.db");
        let (server, authctl) =
            (Store::open(&path).await.unwrap(), Store::open(&path).await.unwrap());
        let mut before = server.policy().await.unwrap();
        for (statement, is_act) in [
            ("INSERT INTO audit (at, event, detail) VALUES (0, 'token.issue', '{}')", false),
            ("DELETE FROM audit", false),
            ("INSERT INTO htpasswd_seen VALUES ('a', 'b')", false),
            ("INSERT INTO counter_marks VALUES (1, 0, 0)", false),
            ("INSERT INTO grants VALUES (1, 'a', 'b', 'pull', 0, NULL, 'allow')", true),
            ("UPDATE grants SET actions = 'pull,push'", true),
            ("DELETE FROM grants", true),
            ("UPDATE sequence SET value = value + 1", true),
            ("INSERT INTO counters VALUES ('a', 1)", true),
            ("INSERT INTO counters VALUES ('a', 1) ON CONFLICT DO UPDATE SET counter = 2", true),
            ("DELETE FROM counters", true),
            ("INSERT INTO group_members VALUES ('a', 'b')", true),
            ("DELETE FROM group_members", true),
            ("INSERT INTO robots VALUES ('robot.a', 'b', 0, NULL, NULL)", true),
            ("UPDATE robots SET last_used = 1", false),
            ("UPDATE robots SET expires = 1", true),
            ("DELETE FROM robots", true),
            (
                "INSERT INTO trusts VALUES ('robot.b', 'https://a.test', 'b', 'c:d:e', '{}', NULL, \
                 NULL, NULL, 0, NULL)",
                true,
            ),
            ("UPDATE trusts SET last_used = 1", false),
            ("UPDATE trusts SET subject = 'x'", true),
            ("DELETE FROM trusts", true),
            ("INSERT INTO refresh_tokens VALUES (1, 'a', 'b', 'c', 'd', 0, 0)", false),
            ("DELETE FROM refresh_tokens", false),
            ("INSERT INTO sign_in_addresses VALUES ('a', '192.0.2.1', 0)", false),
        ] {
            sqlx::query(statement).execute(&mut *authctl.writer.lock().await).await.unwrap();
            let after = server.policy().await.unwrap();
            assert_eq!(!Arc::ptr_eq(&before, &after), is_act, "{statement}");
            before = after;
        }
    }

    #[tokio::test]
    async fn a_replaced_database_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("auth.db");
        let store = Store::open(&path).await.unwrap();
        store.policy().await.unwrap();
        fs::rename(&path, dir.path().join("elsewhere")).unwrap();
        assert!(matches!(store.policy().await, Err(Error::Replaced(_))));
    }

    #[tokio::test]
    async fn what_is_no_database_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("auth.db");
        fs::write(&path, "this is no database, however long it may be").unwrap();
        assert!(matches!(Store::open(&path).await, Err(Error::Open { .. })));
    }
}
