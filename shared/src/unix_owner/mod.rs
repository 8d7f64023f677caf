//! Root does in a directory what the directory's owner could do there, and no more.
//!
//! Whoever owns a directory can put a link in the place of anything in it, at any moment. So a
//! program that root runs finds out who owns each directory that it works in, and opens, makes and
//! removes what is in it as that user ([`Identity`]): a link then leads nowhere where its maker
//! could not go by himself. `docs/decisions/0009` says why it is done so.

mod place;
mod settings;
mod way;

use std::{
    ffi::CString,
    io,
    marker::PhantomData,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process,
};

use nix::unistd::{
    Gid, Uid, User, geteuid, initgroups, setfsgid, setfsuid, setgid, setgroups, setuid,
};

pub use place::Place;
pub use settings::Settings;
use way::Way;

/// A user and the group of that user's files, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// The user.
    pub user: u32,
    /// The group.
    pub group: u32,
}

impl Owner {
    /// Whether this user may read a file, as far as its mode says.
    pub fn may_read(self, file: &std::fs::Metadata) -> bool {
        let bit = if file.uid() == self.user {
            0o400
        } else if file.gid() == self.group {
            0o040
        } else {
            0o004
        };
        file.mode() & bit != 0
    }

    /// Gives the process the groups that the owner's own processes have: the servers share files by
    /// one of them. In a container nobody may be known by the number.
    fn take_groups(self) -> Result<(), nix::Error> {
        let group = Gid::from_raw(self.group);
        let known = User::from_uid(Uid::from_raw(self.user)).ok().flatten();
        match known.map(|known| CString::new(known.name)) {
            Some(Ok(name)) => initgroups(&name, group),
            Some(Err(_)) | None => setgroups(&[group]),
        }
    }
}

/// The superuser.
const ROOT: Owner = Owner { user: 0, group: 0 };

/// The bits of a file's mode that let others than its owner write.
const GROUP_WRITES: u32 = 0o020;
const OTHERS_WRITE: u32 = 0o002;

/// A database, and the files that SQLite opens beside it.
const DATABASE_SUFFIXES: [&str; 4] = ["", "-journal", "-wal", "-shm"];

/// No user: the system says who a thread is when it is asked to become this one.
const NOBODY: u32 = u32::MAX;

/// Root does not go there.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody else can make the way lead anywhere.
    #[error(
        "{} is a symbolic link, which root does not follow where somebody else may have made it: \
         remove it, or name what it leads to",
        .0.display()
    )]
    Symlink(PathBuf),
    /// Something else lies where a database does.
    #[error("{} is no regular file: remove it", .0.display())]
    NoFile(PathBuf),
    /// Somebody else can put another directory in its place.
    #[error(
        "{} belongs to root and lies in {}, where user {user} could put another in its place: \
         give it to user {user}, or move it",
        path.display(), above.display()
    )]
    Replaceable {
        /// What is to be worked in.
        path: PathBuf,
        /// The first directory on the way that is not root's.
        above: PathBuf,
        /// Whose that is.
        user: u32,
    },
    /// The settings cannot be read.
    #[error(
        "reading {}: {source}; --config FILE names another file, and authctl init writes one",
        path.display()
    )]
    ReadSettings {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Whoever wrote the settings would use root to get at what is not theirs.
    #[error(
        "{} may be written by user {user} and names {}, which belongs to another: give the \
         settings to root, or the directory to user {user}",
        settings.display(), directory.display()
    )]
    ForeignSettings {
        /// The file.
        settings: PathBuf,
        /// Who can write it.
        user: u32,
        /// What it names.
        directory: PathBuf,
    },
    /// Anybody could use root to get at what is not theirs.
    #[error(
        "{settings} may be written by others than its owner, and says what root is to work on: \
         chmod go-w {settings}",
        settings = .0.display()
    )]
    OpenSettings(PathBuf),
    /// The system does not show it.
    #[error("looking at {}", path.display())]
    Io {
        /// What.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The system does not let root be somebody else.
    #[error("working as user {user}")]
    Become {
        /// Who.
        user: u32,
        /// Why not.
        source: io::Error,
    },
}

/// Who opens, makes and removes files: the process as it is, or where root runs it, whoever owns
/// the directory that they are in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity(Option<Owner>);

impl Identity {
    /// The process as it is.
    pub const UNCHANGED: Self = Self(None);

    /// Who is to work in the directory `path`, or where it is missing in the one that it is to be
    /// made in.
    ///
    /// # Errors
    /// When root is led there by somebody else.
    pub fn of(path: &Path) -> Result<Self, Error> {
        if !geteuid().is_root() {
            return Ok(Self::UNCHANGED);
        }
        let way = Way::to(path)?;
        match (way.stranger, way.end.uid()) {
            (_, user) if user != ROOT.user => Ok(Self(Some(Owner { user, group: way.end.gid() }))),
            (None, _) => Ok(Self(Some(ROOT))),
            (Some((above, user)), _) => {
                Err(Error::Replaceable { path: path.to_owned(), above, user })
            }
        }
    }

    /// Who is to work in the directory of a server that keeps `database` in it and is told so by
    /// `settings`. In a directory of root's the database may be the server's.
    ///
    /// # Errors
    /// As [`of`](Self::of); when the database is no file; and when the settings may be written by
    /// anybody, or could be those of somebody who is neither root nor the directory's owner, nor the
    /// owner of the directory around it, who decides what lies under its name anyway.
    pub fn of_server(settings: &Settings, directory: &Path, database: &str) -> Result<Self, Error> {
        let Some(mut owner) = Self::of(directory)?.0 else { return Ok(Self::UNCHANGED) };
        for suffix in DATABASE_SUFFIXES {
            let file = directory.join(format!("{database}{suffix}"));
            match file.symlink_metadata() {
                Ok(meta) if meta.is_symlink() => return Err(Error::Symlink(file)),
                // SQLite would wait for somebody who writes into a pipe.
                Ok(meta) if !meta.is_file() => return Err(Error::NoFile(file)),
                Ok(meta) if owner.user == ROOT.user && suffix.is_empty() => {
                    owner = Owner { user: meta.uid(), group: meta.gid() }
                }
                // What is missing, or out of reach behind something else, is told when it is opened.
                _ => {}
            }
        }
        let around = Way::to(crate::files::directory_of(directory))?.end.uid();
        settings.may_name(directory, owner, around)?;
        Ok(Self(Some(owner)))
    }

    /// Becomes this user, for good. Called before anything is opened.
    ///
    /// # Errors
    /// When the system does not let it.
    pub fn become_for_good(self) -> Result<(), Error> {
        let Some(owner) = self.foreign() else { return Ok(()) };
        let become_it = || {
            owner.take_groups()?;
            setgid(Gid::from_raw(owner.group))?;
            setuid(Uid::from_raw(owner.user))
        };
        become_it().map_err(|source| Error::Become { user: owner.user, source: source.into() })
    }

    /// Works on files as this user from here on, in this thread and in those that come of it:
    /// called before there is another. What is root's to do is done under [`assume`](Self::assume).
    ///
    /// # Errors
    /// When the system does not let it.
    pub fn enter(self) -> Result<(), Error> {
        let Some(owner) = self.foreign() else { return Ok(()) };
        // Root's groups would open what is theirs.
        let entered = owner.take_groups().map_err(io::Error::from).and_then(|()| switch(owner));
        entered.map(|_| ()).map_err(|source| Error::Become { user: owner.user, source })
    }

    /// Works on files as this user until the result is dropped, in this thread alone.
    ///
    /// # Errors
    /// When the system does not let it.
    pub fn assume(self) -> io::Result<Assumed> {
        let before = self.0.map(switch).transpose()?;
        Ok(Assumed { before, _of_this_thread: PhantomData })
    }

    /// Does work on files as this user.
    ///
    /// # Errors
    /// When the system does not let it, and as `work`.
    pub fn within<T>(self, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let _assumed = self.assume()?;
        work()
    }

    /// Whether this thread works as this user already.
    pub fn is_current(self) -> bool {
        self.0.is_none_or(|owner| owner.user == setfsuid(Uid::from_raw(NOBODY)).as_raw())
    }

    /// The user, if root runs the program and this is another.
    pub fn foreign(self) -> Option<Owner> {
        self.0.filter(|owner| owner.user != ROOT.user)
    }

    /// Root, where root runs the program: for what no other user may do.
    pub fn of_root() -> Self {
        Self(geteuid().is_root().then_some(ROOT))
    }

    /// Whether a file with this metadata is this user's own. To the process as it is, any may be.
    pub fn owns(self, file: &std::fs::Metadata) -> bool {
        self.0.is_none_or(|owner| owner.user == file.uid())
    }
}

/// A thread works on files as somebody else, until this is dropped.
#[derive(Debug)]
#[must_use]
pub struct Assumed {
    before: Option<Owner>,
    // Who a thread is cannot be taken to another, nor across an `.await`.
    _of_this_thread: PhantomData<*const ()>,
}

impl Drop for Assumed {
    fn drop(&mut self) {
        if self.before.is_some_and(|before| switch(before).is_err()) {
            // Nothing may go on as who it must not be.
            process::abort();
        }
    }
}

/// Makes this thread work on files as `owner`; gives as whom it did before. The system tells a
/// failure by nothing but who the thread is afterwards.
fn switch(owner: Owner) -> io::Result<Owner> {
    let (user, group) = (Uid::from_raw(owner.user), Gid::from_raw(owner.group));
    let before = Owner { group: setfsgid(group).as_raw(), user: setfsuid(user).as_raw() };
    let (nobody, no_group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    if (setfsuid(nobody), setfsgid(no_group)) == (user, group) {
        return Ok(before);
    }
    setfsgid(Gid::from_raw(before.group));
    setfsuid(Uid::from_raw(before.user));
    Err(io::ErrorKind::PermissionDenied.into())
}
