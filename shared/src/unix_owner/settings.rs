//! The settings that tell a verb which server is meant, read as who could read them without root.

use std::{
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    unistd::{geteuid, getgroups, setgroups},
};

use super::{Error, GROUP_WRITES, Identity, OTHERS_WRITE, Owner, ROOT, way::Way};
use crate::files::{SMALL_FILE_BYTES_MAX, path_of, read_at_most, text_of};

/// Settings that were read, of which nothing has been used or shown yet.
#[derive(Debug)]
pub struct Settings {
    path: PathBuf,
    text: String,
    writers: Writers,
}

/// Who can write settings.
#[derive(Debug, Clone, Copy)]
struct Writers {
    /// The one who decides what they say.
    user: u32,
    /// The group that can write them as well, if one can.
    group: Option<u32>,
}

impl Settings {
    /// Reads the settings at `path`. Root follows no link that somebody else can have made, and reads
    /// what it comes to as the owner of the directory that it lies in: nobody has root show or use a
    /// file that they could not read themselves. Called before there is a second thread.
    ///
    /// # Errors
    /// When there is no such file, root is led there by somebody else, or anybody could have written
    /// it.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::ReadSettings { path: path.to_owned(), source };
        let (bytes, writers) = if geteuid().is_root() {
            let way = Way::to(path).map_err(|error| match error {
                Error::Io { source, .. } => failed(source),
                error => error,
            })?;
            if !way.is_there {
                return Err(failed(Errno::ENOENT.into()));
            }
            if !way.end.is_file() {
                return Err(failed(io::Error::other("it is no regular file")));
            }
            let writers = Writers::of(&way);
            if way.end.mode() & OTHERS_WRITE != 0 {
                return Err(Error::OpenSettings(path.to_owned()));
            }
            (read_end(&way).map_err(failed)?, writers)
        } else {
            let bytes = read_at_most(path, SMALL_FILE_BYTES_MAX).map_err(failed)?;
            (bytes, Writers { user: ROOT.user, group: None })
        };
        Ok(Self { path: path.to_owned(), text: text_of(bytes).map_err(failed)?, writers })
    }

    /// Where they lie.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What they say.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether they may tell root to work as `owner` in `directory`, which lies in one of `around`'s.
    pub(super) fn may_name(
        &self,
        directory: &Path,
        owner: Owner,
        around: u32,
    ) -> Result<(), Error> {
        let Writers { user, group } = self.writers;
        if group.is_some_and(|group| ![ROOT.group, owner.group].contains(&group)) {
            return Err(Error::OpenSettings(self.path.clone()));
        }
        if ![ROOT.user, owner.user, around].contains(&user) {
            let (settings, directory) = (self.path.clone(), directory.to_owned());
            return Err(Error::ForeignSettings { settings, user, directory });
        }
        Ok(())
    }
}

impl Writers {
    fn of(way: &Way) -> Self {
        let user = match &way.stranger {
            Some((_, user)) if way.end.uid() == ROOT.user => *user,
            _ => way.end.uid(),
        };
        let group = (way.end.mode() & GROUP_WRITES != 0).then(|| way.end.gid());
        Self { user, group }
    }
}

/// Reads what is at the end of the way as the owner of the directory that it lies in, who could have
/// put anything there, by a hard link too.
fn read_end(way: &Way) -> io::Result<Vec<u8>> {
    let read = || read_at_most(&path_of(&way.file), SMALL_FILE_BYTES_MAX);
    let Some(owner) = way.above else { return read() };
    let before = getgroups()?;
    // Root's groups would open what is theirs.
    owner.take_groups()?;
    let bytes = Identity(Some(owner)).within(read);
    setgroups(&before)?;
    bytes
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use nix::{sys::stat::Mode, unistd::mkfifo};

    use super::*;

    fn refusal(path: &Path) -> String {
        Settings::read(path).map_or_else(|error| error.to_string(), |read| read.text)
    }

    #[test]
    fn what_is_no_small_file_of_text_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("good"), "log = 'info'").unwrap();
        assert_eq!(Settings::read(&at("good")).unwrap().text(), "log = 'info'");
        mkfifo(&at("pipe"), Mode::S_IRWXU).unwrap();
        symlink("/dev/zero", at("zeros")).unwrap();
        fs::write(at("long"), vec![b' '; 1024 * 1024 + 1]).unwrap();
        for (name, words) in [
            ("pipe", "no regular file"),
            (".", "no regular file"),
            ("zeros", "no regular file"),
            ("long", "more than 1048576 bytes"),
            ("missing", "--config FILE names another file"),
        ] {
            let told = refusal(&at(name));
            assert!(told.contains(words), "{name}: {told}");
        }
    }
}
