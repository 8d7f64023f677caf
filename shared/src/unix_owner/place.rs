//! A directory that is opened once: what is in it is reached through it from then on.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use nix::{fcntl::OFlag, unistd::geteuid};

use super::{Error, Identity, Owner, way::Way};
use crate::files::path_of;

/// An open directory, and who works in it.
#[derive(Debug)]
pub struct Place {
    handle: File,
    path: PathBuf,
    identity: Identity,
    is_replaceable: bool,
}

impl Place {
    /// Opens the directory at `path`; `None` when there is none.
    ///
    /// # Errors
    /// When it is none, or root is led there by somebody else.
    pub fn open(path: &Path) -> Result<Option<Self>, Error> {
        if !geteuid().is_root() {
            return Self::open_as_is(path);
        }
        let way = Way::to(path)?;
        if !way.is_there {
            return Ok(None);
        }
        if !way.end.is_dir() {
            let source = io::ErrorKind::NotADirectory.into();
            return Err(Error::Io { path: path.to_owned(), source });
        }
        let owner = Owner { user: way.end.uid(), group: way.end.gid() };
        let is_replaceable = owner.user == 0 && way.stranger.is_some();
        // Where the owner works, the path leads nowhere else than where the owner could go.
        let path = if is_replaceable { path_of(&way.file) } else { path.to_owned() };
        let identity = Identity(Some(owner));
        Ok(Some(Self { handle: way.file, path, identity, is_replaceable }))
    }

    /// Opens the directory at `path`, made first where it is missing.
    ///
    /// # Errors
    /// As [`open`](Self::open), and when it cannot be made.
    pub fn make(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Io { path: path.to_owned(), source };
        if let Some(place) = Self::open(path)? {
            return Ok(place);
        }
        Identity::of(path)?.within(|| fs::create_dir_all(path)).map_err(failed)?;
        Self::open(path)?.ok_or_else(|| failed(io::ErrorKind::NotFound.into()))
    }

    fn open_as_is(path: &Path) -> Result<Option<Self>, Error> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
        let opened = File::options().read(true).custom_flags(flags.bits()).open(path);
        let (path, identity) = (path.to_owned(), Identity::UNCHANGED);
        match opened {
            Ok(handle) => Ok(Some(Self { handle, path, identity, is_replaceable: false })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::Io { path, source }),
        }
    }

    /// The directory, open for nothing but going on from there.
    pub fn handle(&self) -> &File {
        &self.handle
    }

    /// A path that leads to this directory and no other for as long as it is open.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Who works in it.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Whether this thread may go there by names alone, as SQLite does, which knows no other way.
    pub fn is_reached_by_name(&self) -> bool {
        !self.is_replaceable && self.identity.is_current()
    }

    /// Does work on files as who works in it.
    ///
    /// # Errors
    /// When the system does not let it, and as `work`.
    pub fn within<T>(&self, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        self.identity.within(work)
    }

    /// Whether `name` is in the directory.
    pub fn has(&self, name: &str) -> bool {
        self.within(|| fs::exists(self.path.join(name))).unwrap_or_default()
    }
}
