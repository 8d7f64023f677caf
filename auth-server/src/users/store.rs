//! The users as the file has them now.
//!
//! The file's metadata is looked at before each use, which costs a microsecond and misses no
//! event. A file that is missing, blank or cut changes nothing: the old users stay.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use berth_shared::{file_stamp::Stamp, subject::UserName, telemetry::chain};
use tokio::sync::Mutex;

use super::htpasswd::{Htpasswd, StoredHash};
use crate::{
    database,
    files::{self, FileError},
};

/// The cost of the dummy check while there is nobody to take it from.
const DUMMY_COST_DEFAULT: u32 = 10;

/// The users of one reading of the file.
#[derive(Default)]
pub struct UserSet {
    /// Their stored passwords.
    pub hashes: BTreeMap<UserName, StoredHash>,
    /// The cost that most users have: what an unknown user's check costs.
    pub modal_cost: u32,
    /// The largest cost that a user has: what is wrong is answered as if it had cost that.
    pub cost_max: u32,
    /// The policy's sequence once this reading's changes had been written to the database: rules
    /// and counters older than this do not know these users yet.
    pub reconciled: u64,
}

impl UserSet {
    /// The users of a file or of what is like one, whose counters had been raised at `reconciled`.
    pub(super) fn of(file: Htpasswd, reconciled: u64) -> Self {
        let hashes = file.users;
        let modal_cost = modal_cost(hashes.values());
        let cost_max = hashes.values().map(StoredHash::cost).max().unwrap_or(modal_cost);
        Self { hashes, modal_cost, cost_max, reconciled }
    }
}

/// The file cannot be used, and there are no old users to go on with.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It cannot be read.
    #[error("{error}: {mend}", error = .0, mend = mend(.0))]
    File(#[from] FileError),
    /// It is empty.
    #[error("{} is empty: run authctl user add NAME", .0.display())]
    Blank(PathBuf),
    /// The database does not answer.
    #[error(transparent)]
    Database(#[from] database::Error),
}

fn mend(error: &FileError) -> &'static str {
    if error.is_forbidden() {
        "make it belong to the user that auth-server runs as"
    } else {
        "run authctl init, or authctl user add NAME"
    }
}

/// The users of a file, read again whenever it has changed.
pub struct UserFile {
    path: PathBuf,
    database: Arc<database::Database>,
    current: Mutex<Reading>,
    is_usable: AtomicBool,
}

/// What the file looked like and what was in it.
struct Reading {
    /// `None` when the file could not be looked at.
    stamp: Option<Stamp>,
    bytes: Vec<u8>,
    set: Arc<UserSet>,
    /// What has been reported about the file as a whole, so that it is said once.
    complaint: Option<String>,
}

impl UserFile {
    /// Reads the file for the first time.
    ///
    /// # Errors
    /// When it is missing or blank, or the database does not answer.
    pub async fn load(path: PathBuf, database: Arc<database::Database>) -> Result<Self, LoadError> {
        let stamp = Stamp::of(&path).ok();
        let bytes = files::read(&path)?;
        let file = Htpasswd::parse(&bytes);
        if file.is_blank {
            return Err(LoadError::Blank(path));
        }
        report(&path, &file);
        let set = adopt(file, &database).await?;
        let reading = Reading { stamp, bytes, set, complaint: None };
        Ok(Self { path, database, current: Mutex::new(reading), is_usable: true.into() })
    }

    /// The users as the file has them now. Whoever has changed or gone since the last look has had
    /// their tokens voided when this returns.
    ///
    /// # Errors
    /// When that could not be written to the database. The users are not taken into use then, and
    /// the next call tries again.
    pub async fn fresh(&self) -> Result<Arc<UserSet>, database::Error> {
        let mut current = self.current.lock().await;
        if current.stamp.is_some_and(|stamp| stamp.still_holds(&self.path)) {
            return Ok(Arc::clone(&current.set));
        }
        // The stamp is taken before the bytes: a write in between is seen again next time.
        let stamp = Stamp::of(&self.path).ok();
        let complaint = match files::read(&self.path) {
            Ok(bytes) if bytes == current.bytes => None,
            Ok(bytes) => self.changed(&mut current, bytes).await?,
            Err(error) => Some(chain(&error)),
        };
        if let Some(complaint) = complaint.as_ref()
            && current.complaint.as_ref() != Some(complaint)
        {
            tracing::warn!(complaint, "the old users stay");
        }
        self.is_usable.store(complaint.is_none(), Ordering::Relaxed);
        (current.stamp, current.complaint) = (stamp, complaint);
        Ok(Arc::clone(&current.set))
    }

    /// Whether the file could be used when it was last looked at.
    pub fn is_usable(&self) -> bool {
        self.is_usable.load(Ordering::Relaxed)
    }

    /// Takes changed bytes into use, or says why not.
    async fn changed(
        &self,
        current: &mut Reading,
        bytes: Vec<u8>,
    ) -> Result<Option<String>, database::Error> {
        let file = Htpasswd::parse(&bytes);
        let shown = self.path.display();
        if file.is_blank {
            return Ok(Some(format!("{shown} is empty")));
        }
        if file.is_cut {
            return Ok(Some(format!("the last line of {shown} is cut off")));
        }
        report(&self.path, &file);
        (current.set, current.bytes) = (adopt(file, &self.database).await?, bytes);
        tracing::info!(users = current.set.hashes.len(), "read {shown} again");
        Ok(None)
    }
}

fn report(path: &std::path::Path, file: &Htpasswd) {
    for problem in &file.problems {
        tracing::warn!("{}, {problem}", path.display());
    }
}

/// Writes to the database what has changed, and only then makes the users usable: otherwise a new
/// password would be accepted while tokens of the old one still hold.
async fn adopt(
    file: Htpasswd,
    database: &database::Database,
) -> Result<Arc<UserSet>, database::Error> {
    let reconciled = database.reconcile_users(&file.fingerprints()).await?;
    Ok(Arc::new(UserSet::of(file, reconciled)))
}

fn modal_cost<'a>(hashes: impl Iterator<Item = &'a StoredHash>) -> u32 {
    let mut counts = BTreeMap::<u32, usize>::new();
    for hash in hashes {
        *counts.entry(hash.cost()).or_default() += 1;
    }
    counts.into_iter().max_by_key(|(_, count)| *count).map_or(DUMMY_COST_DEFAULT, |(cost, _)| cost)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const HASH: &str = "$2y$04$.....................................................";

    async fn open(dir: &std::path::Path, text: &str) -> (UserFile, Arc<database::Database>) {
        let database = Arc::new(database::Database::open(&dir.join("auth.db")).await.unwrap());
        fs::write(dir.join("htpasswd"), text).unwrap();
        (UserFile::load(dir.join("htpasswd"), Arc::clone(&database)).await.unwrap(), database)
    }

    #[tokio::test]
    async fn the_old_users_stay_while_the_file_is_missing_blank_or_cut() {
        let dir = tempfile::tempdir().unwrap();
        let (users, _) = open(dir.path(), &format!("a:{HASH}\n")).await;
        let path = dir.path().join("htpasswd");
        for text in ["", "\n\n", "a:$2y$04$cut"] {
            fs::write(&path, text).unwrap();
            assert_eq!(users.fresh().await.unwrap().hashes.len(), 1, "{text:?}");
        }
        fs::remove_file(&path).unwrap();
        assert_eq!(users.fresh().await.unwrap().hashes.len(), 1);
        fs::write(&path, "# nobody is left\n").unwrap();
        assert_eq!(users.fresh().await.unwrap().hashes.len(), 0);
    }

    #[tokio::test]
    async fn an_edited_file_is_read_again_and_raises_counters_first() {
        let dir = tempfile::tempdir().unwrap();
        let (users, database) = open(dir.path(), &format!("a:{HASH}\nb:{HASH}\n")).await;
        assert_eq!(users.fresh().await.unwrap().modal_cost, 4);
        fs::write(dir.path().join("htpasswd"), format!("a:{HASH}\nc:{HASH}\n")).unwrap();
        let set = users.fresh().await.unwrap();
        assert!(
            set.hashes.contains_key(&"c".parse().unwrap())
                && !set.hashes.contains_key(&"b".parse().unwrap())
        );
        let policy = database.policy().await.unwrap();
        assert_eq!((policy.sequence, set.reconciled), (1, 1));
        assert!(policy.revocations.counters.contains_key(&"b".parse().unwrap()));
    }

    #[tokio::test]
    async fn a_swapped_symbolic_link_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        fs::write(&one, format!("a:{HASH}\n")).unwrap();
        fs::write(&two, format!("b:{HASH}\n")).unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&one, &link).unwrap();
        let store = database::Database::open(&dir.path().join("auth.db")).await.unwrap();
        let users = UserFile::load(link.clone(), Arc::new(store)).await.unwrap();
        fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink(&two, &link).unwrap();
        assert!(users.fresh().await.unwrap().hashes.contains_key(&"b".parse().unwrap()));
    }

    #[tokio::test]
    async fn a_missing_or_empty_file_stops_the_start() {
        let dir = tempfile::tempdir().unwrap();
        let database =
            Arc::new(database::Database::open(&dir.path().join("auth.db")).await.unwrap());
        let path = dir.path().join("htpasswd");
        let missing = UserFile::load(path.clone(), Arc::clone(&database)).await;
        assert!(matches!(missing, Err(LoadError::File(_))));
        fs::write(&path, "").unwrap();
        assert!(matches!(UserFile::load(path, database).await, Err(LoadError::Blank(_))));
    }
}
