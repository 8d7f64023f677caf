//! The data directory: one registry's, and one process's at a time.

mod objects;
mod offline;
mod standing;
mod switch;

use std::{
    fs::{self, File},
    io,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use berth_shared::{
    clock::Clock,
    files::{SMALL_FILE_BYTES_MAX, read_at_most, replace, try_lock},
    serve::tls::TlsError,
};

use crate::{
    auth_client::LinkError,
    config::Config,
    metadata::{self, Database, origin::Origin, postgres},
    registry::{
        Registry,
        lease::{Lease, Work},
    },
    storage::s3,
};
pub(crate) use objects::{Objects, directory};
pub use offline::Offline;

/// The control socket's name within the data directory.
pub const CONTROL_SOCKET: &str = "registry.sock";

/// The database's name there, where it is SQLite's.
pub const DATABASE: &str = "registry.db";

/// The file that says which database the objects belong to, where it is PostgreSQL's.
const ORIGIN: &str = "database.id";

/// The rows of a backup that is being restored.
pub(crate) const RESTORING: &str = "registry.db.restoring";

/// How long the server of the database may take to see that a process has ended.
pub(crate) const ENDING_TIME: Duration = Duration::from_secs(5);

/// The server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Another server uses the data directory.
    #[error("{0} is in use by another registry-server: stop that one first")]
    InUse(String),
    /// The system gives no random bytes.
    #[error("the system gives no randomness")]
    Randomness,
    /// The data directory, a socket or a port cannot be used.
    #[error("preparing {what}")]
    Io {
        /// What.
        what: String,
        /// Why not.
        source: io::Error,
    },
    /// The keys of the foreign issuer cannot be used.
    #[error("foreign_issuer: {0}")]
    ForeignIssuer(String),
    /// The link to `auth-server` cannot be used.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The certificate cannot be used.
    #[error("tls")]
    Tls(#[from] TlsError),
    /// The settings name a database, and another lies in the data directory.
    #[error(
        "[database] names PostgreSQL, and {0} is here: its images are not there; take another \
             directory in `data`, or take [database] out"
    )]
    TwoDatabases(String),
    /// The settings name no database, and the objects belong to one.
    #[error("{0} says that the rows are in PostgreSQL: put [database] back into the settings")]
    DatabaseElsewhere(String),
    /// The objects and the database are not of one registry.
    #[error(
        "the objects in {0} and the database that [database] names are not of one registry: each \
             would take what the other has for lost; a copy of the objects needs their database.id too"
    )]
    OtherRegistry(String),
    /// The settings name no store, and the objects are at one.
    #[error("the objects of this registry are in a bucket: put [store] back into the settings")]
    ObjectsElsewhere,
    /// The settings name a store, and there are objects elsewhere.
    #[error(
        "[store] names {0}, and this registry's objects are on the disk: take [store] out, or bring them \
             there with registry-server backup and restore"
    )]
    ObjectsHere(String),
    /// The bucket is not the one that the rows are about.
    #[error(
        "{0} has no registry.json, so it is not where the objects of this registry are: mend store.url \
             or store.endpoint"
    )]
    BucketUnmarked(String),
    /// The bucket is another registry's.
    #[error(
        "{0} is another registry's, which each would take from the other: name another bucket or prefix \
             in store.url"
    )]
    OtherBucket(String),
    /// Something else lies in the bucket.
    #[error("something else lies in {0}: name a bucket or a prefix in store.url that is empty")]
    BucketInUse(String),
    /// Blobs would go over a network in the clear.
    #[error("store.{key}: {host} is at {address}, which is no private network: use https there")]
    PlainHttp {
        /// By which setting.
        key: &'static str,
        /// Which host.
        host: String,
        /// Where it is.
        address: IpAddr,
    },
    /// The store cannot be used.
    #[error("{0}")]
    Store(String),
    /// Another server uses the database.
    #[error(
        "{0} is in use by another registry-server, which shares it with nobody: stop that one first"
    )]
    DatabaseInUse(String),
    /// Other servers use the database.
    #[error(
        "{0} is in use by registry-servers that share it, or was within the last minute: stop them first"
    )]
    DatabaseShared(String),
    /// Rows are to be brought to where some are.
    #[error("a registry is in the database {0} already: name one that has none")]
    NotEmpty(String),
    /// What is there is half of a registry.
    #[error(
        "a backup was being restored here, which {0} is of: go on with registry-server restore, or to \
         begin anew remove that file and what lies in objects"
    )]
    Restoring(String),
    /// The database cannot be used.
    #[error("the database in {path}")]
    Database {
        /// Where.
        path: String,
        /// Why not.
        source: metadata::Error,
    },
}

/// Where a registry keeps what it has: objects in a directory, and rows there too or at a server.
#[derive(Debug, Clone)]
pub struct Home {
    /// The data directory.
    pub data: PathBuf,
    /// The server of the rows, if they are at one.
    pub database: Option<postgres::Settings>,
    /// The store of the objects, if they are at one.
    pub store: Option<s3::Settings>,
}

impl Home {
    /// As the settings say.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let (data, database, store) =
            (config.data.clone(), config.database.clone(), config.store.clone());
        Self { data, database, store }
    }

    /// Whether several servers may work on it.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.database.is_some() && self.store.is_some()
    }

    /// Whether a registry has ever been there.
    #[must_use]
    pub fn has_registry(&self) -> bool {
        match (&self.database, &self.store) {
            // Nothing of it has to be here: who opens it says what is missing.
            (Some(_), Some(_)) => true,
            (Some(_), None) => self.data.join(ORIGIN).exists(),
            (None, _) => self.data.join(DATABASE).exists(),
        }
    }

    /// Opens the database to read it beside a server that runs, if one does.
    ///
    /// # Errors
    /// When it does not answer, or was written by another version, and when a backup is being restored
    /// there.
    pub async fn open_beside(&self) -> Result<Database, metadata::Error> {
        refuse_half(&self.data).map_err(|error| metadata::Error::Unfit(error.to_string()))?;
        match &self.database {
            None => Database::open_beside(&self.data.join(DATABASE)).await,
            Some(settings) => Database::connect_beside(settings).await,
        }
    }

    /// Opens the database at the server, if the rows go to one, for objects that are to come here.
    pub(crate) async fn open_empty(&self) -> Result<Option<Database>, StartError> {
        let origin = self.data.join(ORIGIN);
        let Some(settings) = &self.database else {
            // Its objects belong to rows elsewhere.
            return match origin.exists() {
                true => Err(StartError::DatabaseElsewhere(origin.display().to_string())),
                false => Ok(None),
            };
        };
        let failed = |source| StartError::Database { path: settings.place().to_owned(), source };
        let database = Database::connect(settings).await.map_err(failed)?;
        if !database.is_bare().await.map_err(failed)? {
            return Err(StartError::NotEmpty(settings.place().to_owned()));
        }
        if self.store.is_none()
            && let Some(rows) = database.origin().await.map_err(failed)?
        {
            directory(&self.data)?;
            join(&self.data, &rows)?;
        }
        Ok(Some(database))
    }
}

/// Opens a registry, whose data directory is locked.
pub(crate) async fn open_registry(
    config: &Config,
    clock: Clock,
    opening: Opening,
) -> Result<(Registry, Objects), StartError> {
    let (home, database) = (Home::of(config), open_database(config).await?);
    let clock = clock_of(&database, clock).await.map_err(failed(&home))?;
    let objects = open_objects(&home, &database, &clock, opening).await?;
    let objects = match config.durable {
        true => objects,
        false => {
            tracing::warn!("durable = false: a power cut may lose pushes that were acknowledged");
            objects.without_durability()
        }
    };
    let registry = Registry::new(database, objects.store(), clock, config.settings);
    registry.look_whether_read_only().await.map_err(failed(&home))?;
    Ok((registry, objects))
}

/// Who opens a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opening {
    /// A server, which sees whether the store does all that it will need.
    Server,
    /// A verb, which finds out.
    Verb,
}

/// Opens the objects, at the first time one server after the other: two that begin would take each other's
/// first for a stranger's.
async fn open_objects(
    home: &Home,
    database: &Database,
    clock: &Clock,
    opening: Opening,
) -> Result<Objects, StartError> {
    if !home.is_shared() {
        return Objects::open(home, database).await;
    }
    // What is wrong is said by who begins.
    match (Objects::beside(home, database).await, opening) {
        (Ok(objects), Opening::Verb) => return Ok(objects),
        (Ok(_), Opening::Server) => return Objects::open(home, database).await,
        (Err(_), _) => {}
    }
    let told = async || {
        tracing::info!("another server begins on the same registry: waiting");
        Ok::<(), metadata::Error>(())
    };
    let lease = Lease::wait_for(database, clock, Work::Start, told).await;
    let lease = lease.map_err(failed(home))?;
    let opened = Objects::open(home, database).await;
    lease.end().await;
    opened
}

/// Refuses what a restore has broken off in: whoever served that, or backed it up, would take it for all
/// there is.
fn refuse_half(data: &Path) -> Result<(), StartError> {
    let restoring = data.join(RESTORING);
    match restoring.exists() {
        true => Err(StartError::Restoring(restoring.display().to_string())),
        false => Ok(()),
    }
}

async fn open_database(config: &Config) -> Result<Database, StartError> {
    refuse_half(&config.data)?;
    let path = config.data.join(DATABASE);
    let failed = |place: String| move |source| StartError::Database { path: place, source };
    let origin = config.data.join(ORIGIN);
    let Some(settings) = &config.database else {
        if origin.exists() {
            return Err(StartError::DatabaseElsewhere(origin.display().to_string()));
        }
        let opened = match config.durable {
            true => Database::open(&path).await,
            false => Database::open_without_durability(&path).await,
        };
        return opened.map_err(failed(path.display().to_string()));
    };
    // Its objects would be taken for those that nobody knows of.
    if path.exists() {
        return Err(StartError::TwoDatabases(path.display().to_string()));
    }
    let place = settings.place().to_owned();
    let database = Database::connect(settings).await.map_err(failed(place.clone()))?;
    if config.store.is_none()
        && let Some(rows) = database.origin().await.map_err(failed(place))?
    {
        if rows.at_store && !rows.is_empty {
            return Err(StartError::ObjectsElsewhere);
        }
        directory(&config.data)?;
        join(&config.data, &rows)?;
    }
    Ok(database)
}

fn failed(home: &Home) -> impl FnOnce(metadata::Error) -> StartError {
    let path = match &home.database {
        Some(settings) => settings.place().to_owned(),
        None => home.data.join(DATABASE).display().to_string(),
    };
    move |source| StartError::Database { path, source }
}

/// The clock that the rows' times are by: that of a database that others write too, else this machine's.
pub(crate) async fn clock_of(database: &Database, clock: Clock) -> Result<Clock, metadata::Error> {
    // The first statement on a connection takes longer; and a time that is late is better than none.
    let _ = database.time().await?;
    Ok(match database.time().await? {
        Some((now, _)) => clock.following(now),
        None => clock,
    })
}

/// Sees to it that objects and rows are of one registry. Others' objects would be taken for what nobody
/// knows of, and deleted.
fn join(data: &Path, rows: &Origin) -> Result<(), StartError> {
    let file = data.join(ORIGIN);
    let prepare = || match read_at_most(&file, SMALL_FILE_BYTES_MAX) {
        Ok(identity) => Ok(identity.trim_ascii() == rows.identity.as_bytes()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let is_new = rows.is_empty && is_empty(&data.join("objects"))?;
            if is_new {
                replace(&file, rows.identity.as_bytes())?;
            }
            Ok(is_new)
        }
        Err(error) => Err(error),
    };
    match prepare().map_err(preparing(&file.display().to_string()))? {
        true => Ok(()),
        false => Err(StartError::OtherRegistry(data.display().to_string())),
    }
}

/// Whether no object lies there.
fn is_empty(objects: &Path) -> io::Result<bool> {
    for shard in fs::read_dir(objects)? {
        if fs::read_dir(shard?.path())?.next().is_some() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Makes the data directory this process's alone, for as long as the file is open.
pub(crate) fn lock(data: &Path) -> Result<File, StartError> {
    let shown = data.display().to_string();
    let prepare = || {
        fs::create_dir_all(data)?;
        try_lock(&data.join("lock"))
    };
    prepare().map_err(preparing(&shown))?.ok_or(StartError::InUse(shown))
}

/// Says what was being prepared.
pub(crate) fn preparing(what: &str) -> impl FnOnce(io::Error) -> StartError {
    let what = what.to_owned();
    move |source| StartError::Io { what, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(identity: &str, is_empty: bool) -> Origin {
        Origin { identity: identity.to_owned(), is_empty, at_store: false }
    }

    fn made() -> tempfile::TempDir {
        let data = tempfile::tempdir().unwrap();
        directory(data.path()).unwrap();
        data
    }

    #[tokio::test]
    #[ignore = "needs PostgreSQL, which tests/interop/postgres.sh starts"]
    async fn times_are_by_the_clock_of_a_database_that_others_write_too() {
        let year_2100 = Duration::from_secs(4_102_444_800);
        let is_led = |clock: &Clock| {
            clock.hear(year_2100);
            clock.now().get() > 4_000_000_000
        };
        let server = Database::connect(&postgres::tests::settings().await).await.unwrap();
        let clock = clock_of(&server, Clock::system()).await.unwrap();
        assert!((clock.now() - Clock::system().now()).abs() < 5);
        assert!(is_led(&clock));
        let directory = tempfile::tempdir().unwrap();
        let file = Database::open(&directory.path().join(DATABASE)).await.unwrap();
        assert!(!is_led(&clock_of(&file, Clock::system()).await.unwrap()));
    }

    #[test]
    fn objects_and_rows_of_two_registries_do_not_come_together() {
        let (first, second) = (made(), made());
        join(first.path(), &rows("a", true)).unwrap();
        join(first.path(), &rows("a", false)).unwrap();
        let other = join(first.path(), &rows("b", true));
        assert!(matches!(other, Err(StartError::OtherRegistry(_))), "{other:?}");
        // Its blobs lie in another directory.
        let elsewhere = join(second.path(), &rows("a", false));
        assert!(matches!(elsewhere, Err(StartError::OtherRegistry(_))), "{elsewhere:?}");
        // Nobody knows whose these are.
        fs::write(second.path().join("objects/00/object"), "").unwrap();
        let unknown = join(second.path(), &rows("c", true));
        assert!(matches!(unknown, Err(StartError::OtherRegistry(_))), "{unknown:?}");
    }
}
