//! What the files of JSON lines have of the table: the file of what was answered, which strangers can
//! make rotate, by tokens for anonymous and by failures that cost nothing to cause; beside it two that
//! have acts and guesses once more, which nothing else makes rotate; and one of what was
//! turned away unseen, which would wash out all else.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{lines::Lines, settings::Settings};
use crate::{
    audit::Row,
    database::{self, Database},
    files::FileError,
};

/// Why a step was not finished.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("writing the audit to the database")]
    Database(#[from] database::Error),
    #[error("writing the file of the audit")]
    File(#[from] FileError),
    #[error("writing the file of the audit broke off: restart auth-server")]
    Broken,
}

/// The files, and how far they have come.
pub struct Export {
    /// That of all that was answered comes last: what is in it is written down as done. Away while
    /// another thread writes.
    files: Option<[Part; 4]>,
    /// The last row that the files have.
    pub(super) exported: i64,
    /// Whether the file was looked at: it may be further on than the database knows.
    is_placed: bool,
    /// Rows that were cleared away before the file could have them.
    pub(super) missed: u64,
}

/// A file of some of the rows, which may be further on than another.
struct Part {
    lines: Lines,
    /// Whether the rows of a ring are in it.
    has: fn(&str) -> bool,
    /// The last row in it.
    exported: i64,
}

/// What a line of a file begins with.
#[derive(Deserialize)]
struct LineId {
    id: i64,
}

impl Export {
    /// To the file at `path`, and to three beside it. They are opened when they are needed.
    pub fn new(path: &Path, settings: &Settings) -> Self {
        let part = |path, has| Part { lines: Lines::new(path, settings), has, exported: 0 };
        let files = [
            part(beside(path, "acts"), |ring| ring == "act"),
            part(beside(path, "failures"), |ring| ring == "guess"),
            part(beside(path, "busy"), |ring| ring == "busy"),
            part(path.to_owned(), |ring| ring != "busy"),
        ];
        Self { files: Some(files), exported: 0, is_placed: false, missed: 0 }
    }

    /// Finds out which row each file ends with: what was written down, or what the file itself says
    /// where that is further on and agrees with the table.
    pub(super) async fn find_place(&mut self, database: &Database) -> Result<(), Error> {
        if self.is_placed {
            return Ok(());
        }
        let Some(files) = &mut self.files else { return Err(Error::Broken) };
        for part in files.iter_mut() {
            part.exported = end_of(&part.lines, database).await?.unwrap_or_default();
        }
        let [.., answered] = files;
        self.exported = self.exported.max(answered.exported);
        self.is_placed = true;
        Ok(())
    }

    /// Appends on the blocking pool.
    pub(super) async fn append(&mut self, rows: Vec<Row>) -> Result<(), Error> {
        let Some(mut files) = self.files.take() else { return Err(Error::Broken) };
        let done = tokio::task::spawn_blocking(move || {
            let appended = files.iter_mut().try_for_each(|part| part.append(&rows));
            (files, appended)
        });
        let (files, appended) = done.await.map_err(|_| Error::Broken)?;
        self.files = Some(files);
        Ok(appended?)
    }
}

impl Part {
    fn append(&mut self, rows: &[Row]) -> Result<(), FileError> {
        let is_new = |row: &&Row| (self.has)(&row.ring) && row.id > self.exported;
        let rows: Vec<Row> = rows.iter().filter(is_new).cloned().collect();
        if let Some(last) = rows.last() {
            self.lines.append(&rows)?;
            self.exported = last.id;
        }
        Ok(())
    }
}

/// The id of the row that a file ends with, if the table has that very row.
async fn end_of(lines: &Lines, database: &Database) -> Result<Option<i64>, Error> {
    let line = lines.last()?.unwrap_or_default();
    let Ok(LineId { id }) = serde_json::from_str(&line) else { return Ok(None) };
    let row = database.rows_after(id.saturating_sub(1), 1).await?;
    Ok(row.first().filter(|row| row.id == id && row.line() == line).map(|row| row.id))
}

/// `audit-failures.jsonl` for `audit.jsonl` and `failures`.
fn beside(path: &Path, word: &str) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().display();
    let extension = path.extension().map(|it| format!(".{}", it.display())).unwrap_or_default();
    path.with_file_name(format!("{stem}-{word}{extension}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_some_rows_lies_beside_the_other() {
        for (path, beside) in [
            ("/data/audit.jsonl", "/data/audit-failures.jsonl"),
            ("/var/log/berth.audit.json", "/var/log/berth.audit-failures.json"),
            ("audit", "audit-failures"),
        ] {
            assert_eq!(super::beside(Path::new(path), "failures"), Path::new(beside));
        }
    }
}
