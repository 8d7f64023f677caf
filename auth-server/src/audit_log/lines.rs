//! The file of JSON lines: appended to, rotated by size, readable by its owner alone.
//!
//! The crates that rotate files by size keep the file to themselves: what was written could not be
//! made durable before the table says that it was. This one is a few renames.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use berth_shared::files::{directory_of, open_file, sync_directory};
use nix::fcntl::OFlag;

use super::settings::Settings;
use crate::{
    audit::Row,
    files::{self, FileError},
};

/// The longest line that is looked for at the end of a file that was there before; rows have a few
/// KiB at most.
const LINE_BYTES_MAX: u64 = 64 * 1024;

/// The file, and those that it was before.
#[derive(Debug)]
pub struct Lines {
    path: PathBuf,
    bytes_max: u64,
    files_max: u32,
    current: Option<Current>,
}

#[derive(Debug)]
struct Current {
    file: File,
    bytes: u64,
}

impl Lines {
    /// The file of these settings at `path`. It is opened when it is needed.
    pub fn new(path: PathBuf, settings: &Settings) -> Self {
        let Settings { file_bytes_max: bytes_max, files_max, .. } = *settings;
        Self { path, bytes_max, files_max, current: None }
    }

    /// The last line that is whole, with its end, of the file as it is now or was before.
    ///
    /// # Errors
    /// When the file is there and cannot be read.
    pub fn last(&self) -> Result<Option<String>, FileError> {
        for path in [self.path.clone(), self.numbered(1)] {
            match open_file(&path).and_then(|mut file| tail(&mut file)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(FileError::new("reading", &path, error)),
                Ok((_, None)) => {}
                Ok((_, line)) => return Ok(line),
            }
        }
        Ok(None)
    }

    /// Appends a line for each of `rows`, durably. When this fails, some of them may be there.
    ///
    /// # Errors
    /// When the file cannot be written or rotated.
    pub fn append(&mut self, rows: &[Row]) -> Result<(), FileError> {
        let result = self.append_all(rows);
        if result.is_err() {
            // What is half written is cut off when the file is opened again.
            self.current = None;
        }
        result
    }

    fn append_all(&mut self, rows: &[Row]) -> Result<(), FileError> {
        let mut text = String::new();
        self.open()?;
        for row in rows {
            let line = row.line();
            let written = self.current.as_ref().map_or(0, |current| current.bytes);
            let bytes = written + text.len() as u64;
            if bytes > 0 && bytes + line.len() as u64 > self.bytes_max {
                self.write(&text)?;
                text.clear();
                self.rotate()?;
            }
            text.push_str(&line);
        }
        self.write(&text)
    }

    fn write(&mut self, text: &str) -> Result<(), FileError> {
        let path = self.path.clone();
        let failed = |source| FileError::new("writing", &path, source);
        let current = self.open()?;
        if text.is_empty() {
            return Ok(());
        }
        current.file.write_all(text.as_bytes()).map_err(failed)?;
        current.file.sync_data().map_err(failed)?;
        current.bytes += text.len() as u64;
        Ok(())
    }

    /// The current file. One that somebody has moved away or deleted is begun anew.
    fn open(&mut self) -> Result<&mut Current, FileError> {
        let identity = |meta: io::Result<fs::Metadata>| meta.ok().map(|it| (it.dev(), it.ino()));
        let place = identity(fs::metadata(&self.path));
        let is_in_place = |current: &Current| identity(current.file.metadata()) == place;
        let current = match self.current.take().filter(is_in_place) {
            Some(current) => current,
            None => open(&self.path)?,
        };
        Ok(self.current.insert(current))
    }

    /// Makes the current file the first of those before, and forgets what is too old.
    fn rotate(&mut self) -> Result<(), FileError> {
        self.current = None;
        let failed = |source| FileError::new("rotating", &self.path, source);
        let before = self.files_max - 1;
        // Also those that a larger files_max left.
        for path in (before..).map(|number| self.numbered(number)).take_while(|path| path.exists())
        {
            fs::remove_file(&path).map_err(failed)?;
        }
        for number in (1..before).rev() {
            rename(&self.numbered(number), &self.numbered(number + 1)).map_err(failed)?;
        }
        rename(&self.path, &self.numbered(1)).map_err(failed)
    }

    fn numbered(&self, number: u32) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push(format!(".{number}"));
        path.into()
    }
}

fn rename(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        renamed => renamed,
    }
}

/// Opens the file, or makes it; a last line that is not whole is cut off.
fn open(path: &Path) -> Result<Current, FileError> {
    let failed = |source| FileError::new("opening", path, source);
    let directory = directory_of(path);
    files::make_directory(directory)?;
    let is_new = !path.exists();
    let mut options = OpenOptions::new();
    let options = options.read(true).append(true).create(true).mode(files::PRIVATE);
    // A pipe in its place is not waited for, and a device is not filled.
    let options = options.custom_flags(OFlag::O_NONBLOCK.bits());
    let mut file = options.open(path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(failed(io::Error::other("it is no regular file")));
    }
    let (bytes, _) = tail(&mut file).map_err(failed)?;
    if bytes < file.metadata().map_err(failed)?.len() {
        file.set_len(bytes).map_err(failed)?;
    }
    if is_new {
        sync_directory(directory).map_err(failed)?;
    }
    Ok(Current { file, bytes })
}

/// Where the last whole line ends, and that line, if it is not too long to be one of ours.
fn tail(file: &mut File) -> io::Result<(u64, Option<String>)> {
    let length = file.metadata()?.len();
    let start = length.saturating_sub(LINE_BYTES_MAX);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(LINE_BYTES_MAX).read_to_end(&mut bytes)?;
    let Some(end) = bytes.iter().rposition(|byte| *byte == b'\n') else {
        // All of it is half a line, or it is no file of lines: that is left alone.
        return Ok((if start == 0 { 0 } else { length }, None));
    };
    let from = bytes[..end].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let line = String::from_utf8(bytes[from..=end].to_vec()).ok();
    Ok((start + end as u64 + 1, line))
}

#[cfg(test)]
mod tests {
    use berth_shared::clock::UnixSeconds;
    use std::os::unix::fs::PermissionsExt;

    use serde_json::Map;

    use super::*;

    fn row(id: i64) -> Row {
        let detail = Map::from_iter([("text".to_owned(), "x".repeat(1000).into())]);
        Row {
            id,
            at: UnixSeconds::new(0),
            event: "token.issue".to_owned(),
            subject: None,
            actor: None,
            detail,
            ring: String::new(),
        }
    }

    fn lines(dir: &Path, bytes_max: u64, files_max: u32) -> Lines {
        let settings = Settings { file_bytes_max: bytes_max, files_max, ..Settings::default() };
        Lines::new(dir.join("sub/audit.jsonl"), &settings)
    }

    fn ids(path: &Path) -> Vec<i64> {
        let text = fs::read_to_string(path).unwrap();
        let id =
            |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["id"].as_i64();
        text.lines().map(|line| id(line).unwrap()).collect()
    }

    #[test]
    fn files_are_private_and_neither_grow_nor_become_more_than_allowed() {
        let dir = tempfile::tempdir().unwrap();
        let mut lines = lines(dir.path(), 3_500, 3);
        // A larger files_max left this.
        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::write(lines.numbered(3), "old").unwrap();
        fs::write(lines.numbered(2), "old").unwrap();
        let rows: Vec<_> = (1..=11).map(row).collect();
        lines.append(&rows[..2]).unwrap();
        lines.append(&rows[2..]).unwrap();
        assert_eq!(ids(&lines.path), [10, 11]);
        assert_eq!(ids(&lines.numbered(1)), [7, 8, 9]);
        assert_eq!(ids(&lines.numbered(2)), [4, 5, 6]);
        assert_eq!(fs::read_dir(dir.path().join("sub")).unwrap().count(), 3);
        for path in [lines.path.clone(), lines.numbered(2)] {
            let meta = fs::metadata(path).unwrap();
            assert!(meta.len() <= 3_500 && meta.permissions().mode() & 0o777 == 0o600);
        }
        assert_eq!(lines.last().unwrap(), Some(row(11).line()));
    }

    #[test]
    fn a_torn_line_is_cut_off_and_a_file_that_was_moved_is_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        let mut lines = lines(dir.path(), 100_000, 2);
        lines.append(&[row(1), row(2)]).unwrap();
        let torn = fs::read_to_string(&lines.path).unwrap() + "{\"id\":3,\"at\"";
        fs::write(&lines.path, torn).unwrap();
        lines.current = None;
        assert_eq!(lines.last().unwrap(), Some(row(2).line()));
        lines.append(&[row(3)]).unwrap();
        assert_eq!(ids(&lines.path), [1, 2, 3]);
        fs::rename(&lines.path, dir.path().join("moved")).unwrap();
        lines.append(&[row(4)]).unwrap();
        assert_eq!((ids(&lines.path), ids(&dir.path().join("moved"))), (vec![4], vec![1, 2, 3]));
        fs::remove_file(&lines.path).unwrap();
        assert_eq!(lines.last().unwrap(), None);
        fs::write(&lines.path, "{\"id\":5").unwrap();
        lines.append(&[row(5)]).unwrap();
        assert_eq!(ids(&lines.path), [5]);
    }
}
