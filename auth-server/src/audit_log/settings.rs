//! The `[audit]` table of `auth.toml`.

use std::path::{Path, PathBuf};

use berth_shared::config::{ConfigError, beside};
use serde::Deserialize;

/// What stands for no file.
const OFF: &str = "off";

/// The least that can be asked for: what a client causes must not push itself out at once.
const ROWS_MIN: u64 = 1_000;

/// The least size of a file: a row has a few KiB at most.
const FILE_BYTES_MIN: u64 = 64 * 1024;

/// With one file, what has just been written would go at every rotation.
const FILES_MIN: u64 = 2;

/// What is recorded, and how much of it is kept.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Whether a token that was given as it was asked for is written down.
    pub issue: bool,
    /// Rows of tokens that clients were given, at most. Acts of administration and failures are
    /// counted apart.
    pub rows_max: u64,
    /// Rows of each kind of failure, at most.
    pub failure_rows_max: u64,
    /// The file of JSON lines: a path, or `off`. Unless given it lies in the data directory.
    pub file: Option<PathBuf>,
    /// The size at which the file is rotated.
    pub file_bytes_max: u64,
    /// Files at most, the current one among them.
    pub files_max: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            issue: true,
            rows_max: 1_000_000,
            failure_rows_max: 100_000,
            file: None,
            file_bytes_max: 16 * 1024 * 1024,
            files_max: 5,
        }
    }
}

impl Settings {
    /// Makes the path one that holds from everywhere, as seen from the settings file `config`.
    pub(crate) fn place_beside(&mut self, config: &Path) {
        if let Some(file) = self.file.as_mut().filter(|file| file.as_os_str() != OFF) {
            *file = beside(config, file);
        }
    }

    /// The file of JSON lines, for a server whose data lies in `data`.
    pub fn file(&self, data: &Path) -> Option<PathBuf> {
        match &self.file {
            None => Some(data.join("audit.jsonl")),
            Some(file) => (file.as_os_str() != OFF).then(|| file.clone()),
        }
    }

    /// Whether a file is asked for.
    pub(crate) fn is_to_a_file(&self) -> bool {
        self.file.as_ref().is_some_and(|file| file.as_os_str() != OFF)
    }

    /// Refuses values that make no sense.
    ///
    /// # Errors
    /// The first such value, with its key.
    pub fn check(&self) -> Result<(), ConfigError> {
        for (key, value, least) in [
            ("audit.rows_max", self.rows_max, ROWS_MIN),
            ("audit.failure_rows_max", self.failure_rows_max, ROWS_MIN),
            ("audit.file_bytes_max", self.file_bytes_max, FILE_BYTES_MIN),
            ("audit.files_max", self.files_max.into(), FILES_MIN),
        ] {
            if value < least {
                return Err(ConfigError::value(key, format!("must be at least {least}")));
            }
        }
        if self.file.as_ref().is_some_and(|file| file.as_os_str().is_empty()) {
            return Err(ConfigError::value("audit.file", "is a path, or \"off\""));
        }
        Ok(())
    }
}
