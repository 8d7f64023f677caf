//! Which server is meant: its settings, its database, its users.

use std::{ffi::OsString, path::PathBuf};

use auth_server::{
    acl::{policy::Policy, store::Store},
    audit::Author,
    certs::Found,
    config::{self, Config},
    files,
    users::{edit::Editor, htpasswd::Htpasswd},
};
use berth_shared::{
    clock::Clock,
    owner::{Identity, Settings},
    pattern::Pattern,
    subject::{Grantee, UserName},
};

use crate::report::{Failure, warn};

/// What was said on the command line and in the environment.
pub(crate) struct Search {
    pub(crate) config: Option<PathBuf>,
    /// `BERTH_DATA`.
    pub(crate) data: Option<OsString>,
    /// Who types, for the audit.
    pub(crate) author: Author,
}

/// The server that is meant.
pub(crate) struct Site {
    pub(crate) config: Config,
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
    pub(crate) fn site(self) -> Result<Site, Failure> {
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
        Ok(Site { config, author: self.author })
    }
}

impl Search {
    /// The server that is meant, where its settings can be read: there are verbs that need none. Root
    /// is told why not, rather than going on elsewhere.
    pub(crate) fn site_if_any(self) -> Result<Option<Site>, Failure> {
        let path = self.path();
        if path.try_exists().is_ok_and(|is_there| !is_there) {
            return Ok(None);
        }
        match self.site() {
            Ok(site) => Ok(Some(site)),
            Err(failure) if Identity::of_root() != Identity::UNCHANGED => Err(failure),
            Err(_) => Ok(None),
        }
    }
}

impl Site {
    /// Opens the database, and makes it first if the server has never run.
    pub(crate) async fn database(&self) -> Result<Store, Failure> {
        files::make_directory(&self.config.data)?;
        Ok(Store::open(&self.config.database()).await?.acting(self.author.clone()))
    }

    /// The users as the file has them; nobody while there is no file.
    pub(crate) fn users(&self) -> Htpasswd {
        files::read(&self.config.htpasswd)
            .map_or_else(|_| Htpasswd::default(), |bytes| Htpasswd::parse(&bytes))
    }

    /// The users' file, to be changed.
    pub(crate) fn editor(&self) -> Result<Editor, Failure> {
        Ok(Editor::open(&self.config.htpasswd)?)
    }

    /// Warns when nobody is called `grantee`: it may be a typing error, or somebody who is yet to
    /// come.
    pub(crate) fn warn_of_nobody(&self, grantee: &Grantee, policy: &Policy) {
        if let Some((what, next)) = self.nobody(grantee, policy) {
            warn(&format!("{what} yet; {next}"));
        }
    }

    /// Says that nobody is called `grantee`, and how there would be somebody.
    pub(crate) fn nobody(&self, grantee: &Grantee, policy: &Policy) -> Option<(String, String)> {
        Some(match grantee {
            Grantee::User(name) if !self.users().users.contains_key(name) => {
                (format!("there is no user {name}"), format!("to add one: authctl user add {name}"))
            }
            Grantee::Robot(name)
                if policy.robots.get(name).is_none() && policy.trusts.get(name).is_none() =>
            {
                (
                    format!("there is no {name}"),
                    format!(
                        "to make it: authctl robot create {name} (a secret) or authctl trust add {name} \
                         (its issuer's tokens)"
                    ),
                )
            }
            Grantee::Group(name) if !policy.groups.contains_key(name) => (
                format!("nobody is in {grantee}"),
                format!("to add somebody: authctl group add {name} USER"),
            ),
            _ => return None,
        })
    }

    /// Warns when a rule is written with the registry's own name in front: it holds for a repository
    /// that nobody means.
    pub(crate) fn warn_of_host(&self, patterns: &[&Pattern]) {
        let Some(certificates) = &self.config.certificates else { return };
        let Ok(Found::Own { hosts } | Found::Berths { hosts, .. }) =
            certificates.files().find(&Clock::system())
        else {
            return;
        };
        for pattern in patterns {
            let Some((first, rest)) = pattern.as_str().split_once('/') else { continue };
            if hosts.iter().any(|host| host.to_string() == first) {
                warn(&format!(
                    "{first} is this registry's own name, which no repository's begins with: write {rest}"
                ));
            }
        }
    }

    pub(crate) fn no_such_user(&self, name: &UserName) -> Failure {
        let file = self.config.htpasswd.display();
        Failure::refused(format!("no user {name} in {file}; to add one: authctl user add {name}"))
    }
}
