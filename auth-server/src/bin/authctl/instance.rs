//! Which server is meant.

use std::path::Path;

use auth_server::{
    admin::Admin,
    audit::Author,
    config::{self, Config},
};
use berth_shared::unix_owner::{Identity, Settings};

use crate::report::{Failure, refuse_if};

/// Reads the settings at `path` and becomes the owner of the data. What is done is written down as
/// done by `author`.
///
/// # Errors
/// When there are no settings, or they cannot be read.
pub(crate) fn find(path: &Path, author: Author) -> Result<Admin, Failure> {
    refuse_if(is_missing(path), || {
        format!(
            "there is no {}: say which server with --config FILE or BERTH_DATA, or set one up with \
             authctl init",
            path.display()
        )
    })?;
    let settings = Settings::read(path)?;
    let config = Config::of(&settings)?;
    Identity::of_server(&settings, &config.data, config::DATABASE)?.become_for_good()?;
    Ok(Admin::new(config, author))
}

/// The server that is meant, where its settings can be read: there are verbs that need none. Root is
/// told why not, rather than going on elsewhere.
///
/// # Errors
/// When root cannot read the settings.
pub(crate) fn find_if_any(path: &Path, author: Author) -> Result<Option<Admin>, Failure> {
    match find(path, author) {
        Ok(admin) => Ok(Some(admin)),
        Err(failure) if Identity::of_root() != Identity::UNCHANGED && !is_missing(path) => {
            Err(failure)
        }
        Err(_) => Ok(None),
    }
}

/// A directory that may not be read is told apart from a file that is not there.
fn is_missing(path: &Path) -> bool {
    path.try_exists().is_ok_and(|is_there| !is_there)
}
