//! Changing an htpasswd file the way its owner would: one line is set or removed, all others and
//! every comment stay as they are.
//!
//! Only `authctl` does this. A lock beside the file keeps two of them apart.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use berth_shared::subject::UserName;

use super::htpasswd::{Htpasswd, name_in};
use crate::files::{self, FileError};

/// What a new file begins with. It also keeps a file without users from looking like one that is
/// being written.
pub const HEADER: &str =
    "# Users of Berth, one per line: name, colon, bcrypt hash. Changed by `authctl user`.\n";

/// An htpasswd file that nobody else's `authctl` changes meanwhile.
#[derive(Debug)]
pub struct Editor {
    path: PathBuf,
    bytes: Vec<u8>,
    _lock: File,
}

impl Editor {
    /// Reads the file under its lock; one that is missing is taken as new.
    ///
    /// # Errors
    /// When the file or its lock cannot be opened.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let mut name = path.as_os_str().to_owned();
        name.push(".lock");
        let lock = files::lock(Path::new(&name))?;
        let mut bytes = match files::read(path) {
            Err(error) if error.is_missing() => HEADER.into(),
            read => read?,
        };
        // A byte order mark would be taken for part of the first name.
        if bytes.starts_with("\u{feff}".as_bytes()) {
            bytes.drain(.."\u{feff}".len());
        }
        Ok(Self { path: path.to_owned(), bytes, _lock: lock })
    }

    /// What the file says now.
    pub fn parse(&self) -> Htpasswd {
        Htpasswd::parse(&self.bytes)
    }

    /// Whether any line has this name, whatever its password looks like.
    pub fn has_line(&self, name: &UserName) -> bool {
        self.lines().any(|line| is_of(line, name))
    }

    /// Gives `name` this hash: in its first line, or in a new one. Further lines of that name go.
    pub fn set(&mut self, name: &UserName, hash: &str) {
        let line = format!("{name}:{hash}\n").into_bytes();
        let first = self.lines().position(|old| is_of(old, name));
        let mut lines: Vec<_> = self.lines().filter(|old| !is_of(old, name)).collect();
        if first.is_none() && lines.last().is_some_and(|last| !last.ends_with(b"\n")) {
            lines.push(b"\n");
        }
        lines.insert(first.unwrap_or(lines.len()), &line);
        self.bytes = lines.concat();
    }

    /// Removes every line of `name`.
    pub fn remove(&mut self, name: &UserName) {
        self.bytes = self.lines().filter(|line| !is_of(line, name)).collect::<Vec<_>>().concat();
        if self.bytes.trim_ascii().is_empty() {
            self.bytes = HEADER.into();
        }
    }

    /// Puts the changed file in place of the old one.
    ///
    /// # Errors
    /// When it cannot be written; the old one stays then.
    pub fn save(&self) -> Result<(), FileError> {
        files::replace(&self.path, &self.bytes, files::PRIVATE)
    }

    /// The lines, each with its end.
    fn lines(&self) -> impl Iterator<Item = &[u8]> {
        self.bytes.split_inclusive(|byte| *byte == b'\n')
    }
}

fn is_of(line: &[u8], name: &UserName) -> bool {
    name_in(line) == Some(name.as_str().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edit(text: &str, change: impl FnOnce(&mut Editor)) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("htpasswd");
        std::fs::write(&path, text).unwrap();
        let mut editor = Editor::open(&path).unwrap();
        change(&mut editor);
        editor.save().unwrap();
        std::fs::read_to_string(&path).unwrap()
    }

    #[test]
    fn other_lines_and_comments_stay() {
        let name: UserName = "b".parse().unwrap();
        let text = "# people\r\na:1\r\nb:$apr1$2\r\n\nb:again\nc:3";
        assert_eq!(edit(text, |file| file.set(&name, "new")), "# people\r\na:1\r\nb:new\n\nc:3");
        assert_eq!(edit(text, |file| file.remove(&name)), "# people\r\na:1\r\n\nc:3");
        let other: UserName = "d".parse().unwrap();
        assert_eq!(edit("c:3", |file| file.set(&other, "4")), "c:3\nd:4\n");
        assert_eq!(edit("d:3\n", |file| file.remove(&other)), HEADER);
    }

    #[test]
    fn a_missing_file_is_a_new_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("htpasswd");
        let mut editor = Editor::open(&path).unwrap();
        editor.set(&"a".parse().unwrap(), "x");
        editor.save().unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{HEADER}a:x\n"));
    }
}
