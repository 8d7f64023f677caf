//! The way to a file, step by step, with nothing followed that somebody else could have made.

use std::{
    ffi::{OsStr, OsString},
    fs::{File, Metadata},
    io,
    os::unix::fs::MetadataExt,
    path::{self, Component, Path, PathBuf},
};

use nix::{
    fcntl::{OFlag, open, openat, readlinkat},
    sys::stat::Mode,
};

use super::{Error, Identity, Owner};

/// As many links as the system itself follows.
const LINKS_MAX: u32 = 40;

/// What there is on the way to a file.
pub(super) struct Way {
    /// What is at its end, or the last directory on the way to something that is missing.
    pub(super) end: Metadata,
    /// The same, open for nothing but going on from there.
    pub(super) file: File,
    /// Whether it is the end.
    pub(super) is_there: bool,
    /// Who owns the directory that the end lies in, where that is somebody else than root.
    pub(super) above: Option<Owner>,
    /// The first directory before the end that is somebody else's than root's, and whose.
    pub(super) stranger: Option<(PathBuf, u32)>,
}

impl Way {
    /// Goes to `path`.
    ///
    /// # Errors
    /// [`Error::Symlink`] at a link that is not root's in a directory of root's.
    pub(super) fn to(path: &Path) -> Result<Self, Error> {
        let failed = |source: io::Error| Error::Io { path: path.to_owned(), source };
        // To look is all that is done here, and root may have a directory on the way to itself.
        let _as_root = Identity::of_root().assume().map_err(failed)?;
        // The directory of a bare name is the one at work.
        let absolute = path::absolute(Path::new(".").join(path)).map_err(failed)?;
        let top = look_at("/").map_err(failed)?;
        // In a namespace of users the top may belong to one who has no number there.
        let trusted = [0, top.1.uid()];
        let (mut here, mut shown) = (top, PathBuf::from("/"));
        let (mut ahead, mut links) = (steps(&absolute), 0);
        let (mut above, mut stranger, mut is_there) = (None, None, true);
        while let Some(name) = ahead.pop() {
            let next = match look_into(&here.0, &name) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    is_there = false;
                    break;
                }
                next => next.map_err(failed)?,
            };
            if next.1.is_symlink() {
                links += 1;
                let is_roots = [&next.1, &here.1].iter().all(|it| trusted.contains(&it.uid()));
                if !is_roots || links > LINKS_MAX {
                    return Err(Error::Symlink(shown.join(name)));
                }
                let target = readlinkat(&next.0, "").map_err(|error| failed(error.into()))?;
                let target = PathBuf::from(target);
                if target.is_absolute() {
                    (here, shown) = (look_at("/").map_err(failed)?, PathBuf::from("/"));
                }
                ahead.extend(steps(&target));
                continue;
            }
            let owner = Owner { user: here.1.uid(), group: here.1.gid() };
            above = Some(owner).filter(|owner| !trusted.contains(&owner.user));
            if let (None, Some(owner)) = (&stranger, above) {
                stranger = Some((shown.clone(), owner.user));
            }
            here = next;
            if name == ".." { _ = shown.pop() } else { shown.push(name) }
        }
        Ok(Self { end: here.1, file: here.0, is_there, above, stranger })
    }
}

/// The steps of a path, the first of them last.
fn steps(path: &Path) -> Vec<OsString> {
    let names = path.components().rev().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    });
    names.collect()
}

/// No right but that of going on is asked for.
fn flags() -> OFlag {
    OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC
}

fn look_at(path: &str) -> io::Result<(File, Metadata)> {
    with_metadata(open(path, flags(), Mode::empty())?.into())
}

fn look_into(directory: &File, name: &OsStr) -> io::Result<(File, Metadata)> {
    with_metadata(openat(directory, name, flags(), Mode::empty())?.into())
}

fn with_metadata(file: File) -> io::Result<(File, Metadata)> {
    let meta = file.metadata()?;
    Ok((file, meta))
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{lchown, symlink},
    };

    use nix::unistd::geteuid;

    use super::*;

    #[test]
    fn the_end_is_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let inode = |path: &Path| Way::to(path).ok().map(|way| way.end.ino());
        let real = fs::metadata(dir.path()).unwrap().ino();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        for (path, ends_here) in
            [("", true), ("missing", true), ("missing/more", true), ("a", false)]
        {
            assert_eq!(inode(&dir.path().join(path)) == Some(real), ends_here, "{path}");
        }
        assert_eq!(inode(&dir.path().join("a/b/../..")), Some(real));
        assert_eq!(inode(Path::new("")), Some(fs::metadata(".").unwrap().ino()));
        fs::write(dir.path().join("file"), "").unwrap();
        assert!(Way::to(&dir.path().join("file/below")).is_err());
    }

    #[test]
    fn links_of_root_alone_are_followed_and_directories_of_others_are_told() {
        if !geteuid().is_root() {
            return println!("skipped: only root can make files of others");
        }
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("theirs/roots")).unwrap();
        lchown(at("theirs"), Some(10001), Some(10001)).unwrap();
        symlink("theirs/roots", at("link")).unwrap();
        symlink("loop", at("loop")).unwrap();
        symlink(dir.path(), at("theirs/back")).unwrap();
        let way = Way::to(&at("link")).ok().unwrap();
        assert_eq!(way.end.ino(), fs::metadata(at("theirs/roots")).unwrap().ino());
        assert_eq!(way.stranger, Some((at("theirs"), 10001)));
        for name in ["loop", "theirs/back"] {
            assert!(matches!(Way::to(&at(name)), Err(Error::Symlink(_))), "{name}");
        }
        lchown(at("link"), Some(10001), Some(10001)).unwrap();
        assert!(matches!(Way::to(&at("link")), Err(Error::Symlink(link)) if link == at("link")));
    }
}
