//! Where everything lies: one directory for both servers, or one for each.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
};

use auth_server::{
    certs::CertificateFiles,
    files::{self, FileError},
};

use super::{Arguments, Steps, given};
use crate::report::Failure;

/// The paths of an installation, all absolute.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) auth_toml: PathBuf,
    pub(super) registry_toml: PathBuf,
    pub(super) htpasswd: PathBuf,
    pub(super) auth_data: PathBuf,
    pub(super) registry_data: PathBuf,
    pub(super) socket: PathBuf,
    pub(super) certificates: CertificateFiles,
}

impl Layout {
    pub(super) fn new(arguments: &Arguments) -> Result<Self, Failure> {
        let data = real(&arguments.data())?;
        let (auth, registry) = (real(&data.join("auth"))?, real(&data.join("registry"))?);
        let is_split = arguments.split;
        let certs = given(arguments.certs.as_ref())
            .unwrap_or_else(|| if is_split { data.join("certs") } else { "certs".into() });
        let certs = real(&certs)?;
        let ca = if is_split { real(&data.join("ca"))? } else { certs.clone() };
        let settings = match given(arguments.config_dir.as_ref()) {
            Some(folder) => Some(real(&folder)?),
            None => (!is_split).then(|| data.clone()),
        };
        Ok(Self {
            auth_toml: settings.as_ref().unwrap_or(&auth).join("auth.toml"),
            registry_toml: settings.as_ref().unwrap_or(&registry).join("registry.toml"),
            htpasswd: if is_split { &auth } else { &data }.join("htpasswd"),
            socket: real(&data.join("run"))?.join("auth.sock"),
            certificates: CertificateFiles { certs, ca },
            auth_data: auth,
            registry_data: registry,
        })
    }

    /// Makes the directories that are missing. Ones that are there, such as mounted volumes, keep
    /// their mode.
    pub(super) fn make_directories(&self, steps: &mut Steps) -> Result<(), Failure> {
        let folders = [
            self.auth_toml.parent(),
            self.registry_toml.parent(),
            Some(&*self.auth_data),
            Some(&*self.registry_data),
            self.socket.parent(),
            Some(&*self.certificates.certs),
            Some(&*self.certificates.ca),
        ];
        let missing: BTreeSet<_> =
            folders.into_iter().flatten().filter(|folder| !folder.exists()).collect();
        for folder in missing {
            if steps.begin(format!("the directory {}", folder.display())) {
                files::make_directory(folder)?;
            }
        }
        Ok(())
    }
}

/// How a settings file should name `target`: relative where both lie together, so that the tree
/// can be moved, else in full.
pub(super) fn named_from(settings: &Path, target: &Path) -> String {
    let folder = settings.parent().unwrap_or(Path::new("/"));
    let text = |path: &Path| path.to_string_lossy().into_owned();
    if let Ok(below) = target.strip_prefix(folder) {
        return if below.as_os_str().is_empty() { ".".to_owned() } else { text(below) };
    }
    let beside = folder.parent().filter(|parent| parent.parent().is_some());
    match beside.and_then(|parent| target.strip_prefix(parent).ok()) {
        Some(beside) => text(&Path::new("..").join(beside)),
        None => text(target),
    }
}

/// The path without symbolic links, as far as it is there: `..` behind a link leads elsewhere.
fn real(path: &Path) -> Result<PathBuf, Failure> {
    let failed = |source| FileError::new("looking for", path, source);
    let absolute = std::path::absolute(path).map_err(failed)?;
    for folder in absolute.ancestors() {
        match folder.canonicalize() {
            // Joining nothing would leave a slash at the end.
            Ok(real) if folder == absolute => return Ok(real),
            Ok(real) => return Ok(real.join(absolute.strip_prefix(folder).unwrap_or(folder))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error).into()),
        }
    }
    Ok(absolute)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_named_relatively_and_strangers_in_full() {
        for (settings, target, expected) in [
            ("/srv/data/auth.toml", "/srv/data/auth", "auth"),
            ("/srv/data/auth.toml", "/srv/data", "."),
            ("/srv/data/auth.toml", "/srv/certs/server.pem", "../certs/server.pem"),
            ("/etc/berth/auth.toml", "/var/lib/berth/auth", "/var/lib/berth/auth"),
            ("/data/auth.toml", "/certs/server.pem", "/certs/server.pem"),
        ] {
            assert_eq!(named_from(Path::new(settings), Path::new(target)), expected);
        }
    }
}
