//! Which server is meant, and what its administrator works on.
//!
//! The verbs work on the files and the database themselves, with the rights of whoever asks, while
//! the server runs or not.

use std::{path::Path, sync::Arc};

use auth_server::{
    audit::Author,
    config::{self, Config},
    database::{Database, policy::Policy},
    files,
    users::{edit::Editor, htpasswd::Htpasswd},
};
use berth_shared::{
    clock::{Clock, UnixSeconds},
    unix_owner::{Identity, Settings},
};
use tokio::sync::OnceCell;

use crate::report::{Failure, refuse_if};

/// An installation, and who works on it.
pub(crate) struct Admin {
    pub(crate) config: Config,
    pub(crate) author: Author,
    /// Opened when something is asked of it.
    database: OnceCell<Database>,
}

impl Admin {
    /// The installation of these settings. Nothing is opened yet; what is done is written down as
    /// done by `author`.
    pub(crate) fn new(config: Config, author: Author) -> Self {
        Self { config, author, database: OnceCell::new() }
    }

    /// Reads the settings at `path` and becomes the owner of the data.
    ///
    /// # Errors
    /// When there are no settings, or they cannot be read.
    pub(crate) fn find(path: &Path, author: Author) -> Result<Self, Failure> {
        refuse_if(is_missing(path), || {
            format!(
                "there is no {}: say which server with --config FILE or BERTH_DATA, or set one up \
                 with authctl init",
                path.display()
            )
        })?;
        let settings = Settings::read(path)?;
        let config = Config::of(&settings)?;
        Identity::of_server(&settings, &config.data, config::DATABASE)?.become_for_good()?;
        Ok(Self::new(config, author))
    }

    /// The server that is meant, where its settings can be read: there are verbs that need none. Root
    /// is told why not, rather than going on elsewhere.
    ///
    /// # Errors
    /// When root cannot read the settings.
    pub(crate) fn find_if_any(path: &Path, author: Author) -> Result<Option<Self>, Failure> {
        match Self::find(path, author) {
            Ok(admin) => Ok(Some(admin)),
            Err(failure) if Identity::of_root() != Identity::UNCHANGED && !is_missing(path) => {
                Err(failure)
            }
            Err(_) => Ok(None),
        }
    }

    pub(crate) fn clock(&self) -> &Clock {
        self.author.clock()
    }

    pub(crate) fn now(&self) -> UnixSeconds {
        self.clock().now()
    }

    /// The database, which is made first if the server has never run.
    ///
    /// # Errors
    /// When it cannot be opened or made.
    pub(crate) async fn database(&self) -> Result<&Database, Failure> {
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
    pub(crate) async fn policy(&self) -> Result<Arc<Policy>, Failure> {
        Ok(self.database().await?.policy().await?)
    }

    /// The users as the file has them; nobody while there is no file.
    pub(crate) fn users(&self) -> Htpasswd {
        files::read(&self.config.htpasswd)
            .map_or_else(|_| Htpasswd::default(), |bytes| Htpasswd::parse(&bytes))
    }

    /// The users' file, to be changed.
    ///
    /// # Errors
    /// When the file or its lock cannot be opened.
    pub(crate) fn editor(&self) -> Result<Editor, Failure> {
        Ok(Editor::open(&self.config.htpasswd)?)
    }
}

/// A directory that may not be read is told apart from a file that is not there.
fn is_missing(path: &Path) -> bool {
    path.try_exists().is_ok_and(|is_there| !is_there)
}
