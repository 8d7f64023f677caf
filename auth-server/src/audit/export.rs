//! What the files of JSON lines have of the table: the file of all rows, and beside it one of
//! failures, which only failures make rotate.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{lines::Lines, row::Row, settings::Settings, writer::Error};
use crate::acl::store::Store;

/// The files, and how far they have come.
pub struct Export {
    /// Away while another thread writes.
    files: Option<Files>,
    /// The last row in the file of all.
    pub(super) exported: i64,
    /// Whether the file was looked at: it may be further on than the database knows.
    is_placed: bool,
    /// Rows that were cleared away before the file could have them.
    pub(super) missed: u64,
}

struct Files {
    all: Lines,
    failures: Lines,
    /// The last row in the file of failures, as far as that is further on than the other.
    failures_exported: i64,
}

/// What a line of a file begins with.
#[derive(Deserialize)]
struct LineId {
    id: i64,
}

impl Export {
    /// To the file at `path`, and to one beside it. They are opened when they are needed.
    #[must_use]
    pub fn new(path: &Path, settings: &Settings) -> Self {
        let files = Files {
            all: Lines::new(path.to_owned(), settings),
            failures: Lines::new(failures_beside(path), settings),
            failures_exported: 0,
        };
        Self { files: Some(files), exported: 0, is_placed: false, missed: 0 }
    }

    /// Finds out which row each file ends with: what was written down, or what the file itself says
    /// where that is further on and agrees with the table.
    pub(super) async fn find_place(&mut self, store: &Store) -> Result<(), Error> {
        if self.is_placed {
            return Ok(());
        }
        let Some(files) = &mut self.files else { return Err(Error::Broken) };
        self.exported = end_of(&files.all, store).await?.unwrap_or_default().max(self.exported);
        files.failures_exported = end_of(&files.failures, store).await?.unwrap_or_default();
        self.is_placed = true;
        Ok(())
    }

    /// Appends on the blocking pool.
    pub(super) async fn append(&mut self, rows: Vec<Row>) -> Result<(), Error> {
        let Some(mut files) = self.files.take() else { return Err(Error::Broken) };
        let done = tokio::task::spawn_blocking(move || {
            let appended = files.append(&rows);
            (files, appended)
        });
        let (files, appended) = done.await.map_err(|_| Error::Broken)?;
        self.files = Some(files);
        Ok(appended?)
    }
}

impl Files {
    /// Failures first: what is in the file of all is written down as done.
    fn append(&mut self, rows: &[Row]) -> Result<(), crate::files::FileError> {
        let is_new = |row: &&Row| row.is_failure_of_somebody() && row.id > self.failures_exported;
        let failures: Vec<Row> = rows.iter().filter(is_new).cloned().collect();
        if let Some(last) = failures.last() {
            self.failures.append(&failures)?;
            self.failures_exported = last.id;
        }
        self.all.append(rows)
    }
}

/// The id of the row that a file ends with, if the table has that very row.
async fn end_of(lines: &Lines, store: &Store) -> Result<Option<i64>, Error> {
    let line = lines.last()?.unwrap_or_default();
    let Ok(LineId { id }) = serde_json::from_str(&line) else { return Ok(None) };
    let row = store.rows_after(id.saturating_sub(1), 1).await?;
    Ok(row.first().filter(|row| row.id == id && row.line() == line).map(|row| row.id))
}

/// `audit-failures.jsonl` for `audit.jsonl`.
fn failures_beside(path: &Path) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().display();
    let extension = path.extension().map(|it| format!(".{}", it.display())).unwrap_or_default();
    path.with_file_name(format!("{stem}-failures{extension}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_failures_lies_beside_the_other() {
        for (path, beside) in [
            ("/data/audit.jsonl", "/data/audit-failures.jsonl"),
            ("/var/log/berth.audit.json", "/var/log/berth.audit-failures.json"),
            ("audit", "audit-failures"),
        ] {
            assert_eq!(failures_beside(Path::new(path)), Path::new(beside));
        }
    }
}
