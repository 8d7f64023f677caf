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
}

impl Admin {
    /// The installation of these settings. Nothing is opened yet; what is done is written down as
    /// done by `author`.
    pub fn new(config: Config, author: Author) -> Self {
        Self { config, author, database: OnceCell::new() }
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
            files::make_directory(&self.config.data)?;
            Ok(Database::open(&self.config.database()).await?.acting(self.author.clone()))
        };
        self.database.get_or_try_init(open).await
    }

    /// The policy as it is now.
    ///
    /// # Errors
    /// When the database cannot be opened or does not answer.
    pub async fn policy(&self) -> Result<Arc<Policy>, Error> {
        Ok(self.database().await?.policy().await?)
    }

    /// The users as the file has them; nobody while there is no file.
    pub fn users(&self) -> Htpasswd {
        files::read(&self.config.htpasswd)
            .map_or_else(|_| Htpasswd::default(), |bytes| Htpasswd::parse(&bytes))
    }

    /// The users' file, to be changed.
    fn editor(&self) -> Result<Editor, Error> {
        Ok(Editor::open(&self.config.htpasswd)?)
    }
}
