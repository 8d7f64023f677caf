//! What an administrator does to an installation: each operation gives back what came of it, and
//! prints nothing.
//!
//! `authctl` is one way to ask for them. They work on the files and the database themselves, with
//! the rights of whoever asks, while the server runs or not. What a person should know before an act
//! is a [`Warning`]; nothing is done about it.

mod error;
pub mod groups;
pub mod policy;
pub mod robots;
pub mod rules;
pub mod trusts;
pub mod users;
mod warning;

use std::sync::Arc;

use berth_shared::clock::{Clock, UnixSeconds};
use parking_lot::Mutex;
use tokio::sync::OnceCell;

pub use self::{
    error::Error,
    warning::{Nobody, Warning},
};
use crate::{
    audit::Author,
    config::Config,
    database::{Database, policy::Policy},
    files,
    keys::KeyStore,
    users::{edit::Editor, htpasswd::Htpasswd},
};

/// An installation, and who works on it.
pub struct Admin {
    /// Its settings.
    pub config: Config,
    /// Who works on it.
    pub author: Author,
    /// Opened when something is asked of it.
    database: OnceCell<Database>,
    /// The users of the policy that was looked at last, where it has them.
    seen: Mutex<Option<Htpasswd>>,
}

impl Admin {
    /// The installation of these settings. Nothing is opened yet; what is done is written down as
    /// done by `author`.
    pub fn new(config: Config, author: Author) -> Self {
        Self { config, author, database: OnceCell::new(), seen: Mutex::default() }
    }

    /// The clock that what is done is written down by.
    pub fn clock(&self) -> &Clock {
        &self.author.clock
    }

    /// The time.
    pub fn now(&self) -> UnixSeconds {
        self.clock().now()
    }

    /// The database, which is made first if the server has never run.
    ///
    /// # Errors
    /// When it cannot be opened or made.
    pub async fn database(&self) -> Result<&Database, Error> {
        let open = async || {
            let mut author = self.author.clone();
            let database = match &self.config.server {
                Some(server) => {
                    let database = Database::connect(server).await?;
                    // All go by the database's clock there.
                    if let Some(now) = database.time().await? {
                        author.clock = author.clock.following(now);
                    }
                    database
                }
                None => {
                    files::make_directory(&self.config.data)?;
                    Database::open(&self.config.database()).await?
                }
            };
            Ok(database.acting(author))
        };
        self.database.get_or_try_init(open).await
    }

    /// The policy as it is now.
    ///
    /// # Errors
    /// When the database cannot be opened or does not answer.
    pub async fn policy(&self) -> Result<Arc<Policy>, Error> {
        let policy = self.database().await?.policy().await?;
        *self.seen.lock() = policy.users.as_deref().map(Htpasswd::of_table);
        Ok(policy)
    }

    /// The signing keys, where they are kept: the database is opened if they lie there, and else left alone,
    /// so that one that is out of order keeps nobody from dropping a key that leaked.
    ///
    /// # Errors
    /// When the database cannot be opened, or what seals the keys cannot be read.
    pub async fn keys(&self) -> Result<KeyStore<'_>, Error> {
        let (settings, clock) = (self.config.keys(), self.clock().clone());
        if settings.sealed_with.is_none() {
            return Ok(KeyStore::directory(settings, clock));
        }
        Ok(KeyStore::database(settings, clock, self.database().await?)?)
    }

    /// The users as the file has them; nobody while there is no file. Where the database has them, as they were
    /// with the last [`policy`](Self::policy).
    pub fn users(&self) -> Htpasswd {
        if let Some(seen) = &*self.seen.lock() {
            return seen.clone();
        }
        files::read(&self.config.htpasswd)
            .map_or_else(|_| Htpasswd::default(), |bytes| Htpasswd::parse(&bytes))
    }

    /// Where the users are, for people.
    pub fn place_of_users(&self) -> String {
        match &self.config.server {
            Some(server) => format!("the database {}", server.place()),
            None => self.config.htpasswd.display().to_string(),
        }
    }

    /// The users' file, to be changed.
    fn editor(&self) -> Result<Editor, Error> {
        Ok(Editor::open(&self.config.htpasswd)?)
    }
}
