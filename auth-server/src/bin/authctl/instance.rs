//! Which server is meant.

use std::{ffi::OsString, path::PathBuf};

use auth_server::{
    admin::Admin,
    audit::Author,
    config::{self, Config},
};
use berth_shared::{
    clock::Clock,
    unix_owner::{Identity, Settings},
};

use crate::report::Failure;

/// What was said on the command line and in the environment.
pub(crate) struct Search {
    pub(crate) config: Option<PathBuf>,
    /// `BERTH_DATA`.
    pub(crate) data: Option<OsString>,
    /// Who types, for the audit.
    pub(crate) author: Author,
}

impl Search {
    fn path(&self) -> PathBuf {
        self.config.clone().unwrap_or_else(|| config::default_file(self.data.clone()))
    }

    /// Reads the settings and becomes the owner of the data.
    ///
    /// # Errors
    /// When there are no settings, or they cannot be read.
    pub(crate) fn admin(self) -> Result<Admin, Failure> {
        let path = self.path();
        // A directory that may not be read is told apart from a file that is not there.
        if path.try_exists().is_ok_and(|is_there| !is_there) {
            let shown = path.display();
            return Err(Failure::refused(format!(
                "there is no {shown}: say which server with --config FILE or BERTH_DATA, or set \
                 one up with authctl init"
            )));
        }
        let settings = Settings::read(&path)?;
        let config = Config::of(&settings)?;
        Identity::of_server(&settings, &config.data, config::DATABASE)?.become_for_good()?;
        Ok(Admin::new(config, self.author, Clock::system()))
    }

    /// The server that is meant, where its settings can be read: there are verbs that need none. Root
    /// is told why not, rather than going on elsewhere.
    pub(crate) fn admin_if_any(self) -> Result<Option<Admin>, Failure> {
        let path = self.path();
        if path.try_exists().is_ok_and(|is_there| !is_there) {
            return Ok(None);
        }
        match self.admin() {
            Ok(admin) => Ok(Some(admin)),
            Err(failure) if Identity::of_root() != Identity::UNCHANGED => Err(failure),
            Err(_) => Ok(None),
        }
    }
}
