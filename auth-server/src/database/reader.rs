//! The connection that reads, and the policy as it stands in the database now.
//!
//! `authctl` writes to the same file while the server runs. SQLite's `PRAGMA data_version` changes
//! whenever another connection has committed, so one look before each use (some 50 µs) is enough
//! to see every change with the next request. Requests that wait for a look share the next one that
//! begins, since it sees all that was there when they came. The pragma does not notice the
//! connection's own commits, so the connection that looks never writes. A server is asked for the policy's
//! number itself, which is one round trip. Most commits are rows of
//! the audit: triggers count those that touch what the policy is read from, and only then is it
//! read again.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use berth_shared::database::Statements;
use data_encoding::HEXLOWER;
use sqlx::{Connection, SqliteConnection};
use tokio::sync::{MappedMutexGuard, Mutex, MutexGuard};

use super::{
    Error,
    policy::Policy,
    postgres::{self, Server},
    sqlite::{FileIdentity, connect, data_version, identity},
};
use crate::random;

/// What reads.
#[derive(Debug)]
pub(super) struct Reader {
    reading: Mutex<Reading>,
    /// How many looks at the database have begun.
    looks: AtomicU64,
    /// How many times it was read again.
    reads: AtomicU64,
}

/// The policy, and what it was read at.
#[derive(Debug)]
struct Reading {
    eye: Eye,
    /// What the policy was read at.
    policy_version: Version,
    policy: Arc<Policy>,
    /// The look that came to its end last, by its place among those that began.
    looked: u64,
    /// The last that failed.
    failed: u64,
}

/// The numbers that triggers raise: of the policy, and of the keys where the database has them.
type Version = (i64, i64);

/// What looks whether the policy is another one, and reads it.
#[derive(Debug)]
enum Eye {
    File(FileEye),
    Server(postgres::Eye),
}

/// The same of a file.
#[derive(Debug)]
struct FileEye {
    path: PathBuf,
    file: FileIdentity,
    /// What tables of revocations say that they are of: this database, as it is opened here. A file may be
    /// put back by hand, but not while it is open, so that within one opening no number comes twice.
    opening: String,
    connection: SqliteConnection,
    /// What the connection saw of commits by others, of whatever, and which policy there was then.
    seen: Option<(i64, i64)>,
}

impl Reader {
    /// Reads the database at `path`, which is the `file` that was opened and is up to date.
    pub(super) async fn of_file(path: &Path, file: FileIdentity) -> Result<Self, Error> {
        let opening = HEXLOWER.encode(&random::bytes::<16>().map_err(|_| Error::Randomness)?);
        let connection = connect(path).await?;
        let eye = FileEye { path: path.to_owned(), file, opening, connection, seen: None };
        Self::with(Eye::File(eye)).await
    }

    /// Reads the database at a server, whose tables are up to date.
    pub(super) async fn of_server(server: Arc<Server>) -> Result<Self, Error> {
        Self::with(Eye::Server(postgres::Eye::open(server).await?)).await
    }

    async fn with(mut eye: Eye) -> Result<Self, Error> {
        let policy_version = eye.version().await?;
        let policy = Arc::new(eye.read().await?);
        let reading = Mutex::new(Reading { eye, policy_version, policy, looked: 0, failed: 0 });
        Ok(Self { reading, looks: AtomicU64::new(0), reads: AtomicU64::new(0) })
    }

    /// The connection to the file, once nobody else reads.
    pub(super) async fn lock(&self) -> Result<MappedMutexGuard<'_, SqliteConnection>, Error> {
        MutexGuard::try_map(self.reading.lock().await, |reading| match &mut reading.eye {
            Eye::File(eye) => Some(&mut eye.connection),
            Eye::Server(_) => None,
        })
        .map_err(|_| Error::OfFile)
    }

    /// Another connection to the file.
    pub(super) async fn connect_again(&self) -> Result<SqliteConnection, Error> {
        let path = match &self.reading.lock().await.eye {
            Eye::File(eye) => eye.path.clone(),
            Eye::Server(_) => return Err(Error::OfFile),
        };
        connect(&path).await
    }

    /// Closes the connection.
    pub(super) async fn close(self) -> Result<(), Error> {
        match self.reading.into_inner().eye {
            Eye::File(eye) => Ok(eye.connection.close().await?),
            Eye::Server(_) => Ok(()),
        }
    }

    /// The policy as it stands in the database now; an error where that is no longer the one that was
    /// opened, since changes to the new one would never be seen.
    pub(super) async fn policy(&self) -> Result<Arc<Policy>, Error> {
        let begun = self.looks.load(Ordering::SeqCst);
        let mut reading = self.reading.lock().await;
        if reading.looked > begun {
            // A look that began after this call has come to its end while this one waited: whatever
            // was changed before the call, it has seen.
            return Ok(Arc::clone(&reading.policy));
        }
        if reading.failed > begun {
            // One that began after this call has failed: nobody waits for another.
            return Err(Error::Unseen);
        }
        let look = self.looks.fetch_add(1, Ordering::SeqCst) + 1;
        match self.look(&mut reading).await {
            Ok(()) => {
                reading.looked = look;
                Ok(Arc::clone(&reading.policy))
            }
            Err(error) => {
                reading.failed = look;
                Err(error)
            }
        }
    }

    async fn look(&self, reading: &mut Reading) -> Result<(), Error> {
        // Taken before the rules are read: a commit in between is seen again next time.
        let policy_version = reading.eye.version().await?;
        if policy_version != reading.policy_version {
            reading.policy = Arc::new(reading.eye.read().await?);
            reading.policy_version = policy_version;
            self.reads.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// How many looks at the database there were, and how many found that it had changed.
    pub(super) fn looks_and_reads(&self) -> (u64, u64) {
        (self.looks.load(Ordering::Relaxed), self.reads.load(Ordering::Relaxed))
    }
}

impl Eye {
    /// Which policy it is now.
    async fn version(&mut self) -> Result<Version, Error> {
        match self {
            Self::File(eye) => eye.version().await.map(|version| (version, 0)),
            Self::Server(eye) => eye.version().await,
        }
    }

    async fn read(&mut self) -> Result<Policy, Error> {
        match self {
            Self::File(eye) => eye.read().await,
            Self::Server(eye) => eye.read().await,
        }
    }
}

impl FileEye {
    async fn version(&mut self) -> Result<i64, Error> {
        if identity(&self.path).ok() != Some(self.file) {
            return Err(Error::Replaced(self.path.clone()));
        }
        let now = data_version(&mut self.connection).await?;
        if let Some((seen, policy_version)) = self.seen
            && seen == now
        {
            return Ok(policy_version);
        }
        let policy_version = "SELECT value FROM policy_version";
        let policy_version = self.connection.one(policy_version, ()).await?;
        self.seen = Some((now, policy_version));
        Ok(policy_version)
    }

    async fn read(&mut self) -> Result<Policy, Error> {
        let mut policy = Policy::read(&mut self.connection).await?;
        policy.revocations.identity.clone_from(&self.opening);
        Ok(policy)
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, task::Poll};

    use super::{super::Database, *};

    #[tokio::test(flavor = "multi_thread")]
    async fn looks_are_shared_and_no_call_misses_a_change_made_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("auth.db");
        let database = Arc::new(Database::open(&path).await.unwrap());
        // Others ask all the time, so that calls wait and share looks.
        let asking: Vec<_> = (0..8)
            .map(|_| {
                let database = Arc::clone(&database);
                tokio::spawn(async move {
                    loop {
                        database.policy().await.unwrap();
                    }
                })
            })
            .collect();
        let mut other = connect(&path).await.unwrap();
        for n in 1..=200_u64 {
            let raise = sqlx::query("UPDATE sequence SET value = value + 1");
            raise.execute(&mut other).await.unwrap();
            let seen = database.policy().await.unwrap().sequence;
            assert!(seen >= n, "{seen} after {n}");
        }
        asking.iter().for_each(tokio::task::JoinHandle::abort);
        let (looks, reads) = database.looks_and_reads();
        assert!(reads <= looks && reads >= 1, "{reads} of {looks}");
    }

    #[tokio::test]
    async fn a_call_that_is_given_up_leaves_its_look_to_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("auth.db");
        // The database's thread may answer before it is asked whether it has.
        let database = loop {
            let database = Database::open(&path).await.unwrap();
            let has_only_begun = {
                let mut given_up = std::pin::pin!(database.policy());
                std::future::poll_fn(|cx| Poll::Ready(given_up.as_mut().poll(cx).is_pending()))
                    .await
            };
            if has_only_begun {
                break database;
            }
        };
        assert_eq!(database.reader.reading.lock().await.looked, 0);
        database.policy().await.unwrap();
        assert_eq!(database.reader.reading.lock().await.looked, 2);
    }

    /// Each act on a store of its own, as `authctl` acts beside the server.
    #[tokio::test]
    async fn the_policy_is_read_again_for_acts_and_for_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("auth.db");
        let (server, authctl) =
            (Database::open(&path).await.unwrap(), Database::open(&path).await.unwrap());
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
            sqlx::query(statement).execute(&mut *authctl.file().await.unwrap()).await.unwrap();
            let after = server.policy().await.unwrap();
            assert_eq!(!Arc::ptr_eq(&before, &after), is_act, "{statement}");
            before = after;
        }
    }

    #[tokio::test]
    async fn a_replaced_database_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("auth.db");
        let database = Database::open(&path).await.unwrap();
        database.policy().await.unwrap();
        fs::rename(&path, dir.path().join("elsewhere")).unwrap();
        assert!(matches!(database.policy().await, Err(Error::Replaced(_))));
    }

    #[tokio::test]
    async fn what_is_no_database_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("auth.db");
        fs::write(&path, "this is no database, however long it may be").unwrap();
        assert!(matches!(Database::open(&path).await, Err(Error::Open { .. })));
    }
}
