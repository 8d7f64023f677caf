//! What the verbs print: text for people, a line of JSON per event for programs.

use std::{io::Write, process::ExitCode};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

/// Why a verb did nothing, or broke off, for a person to read.
#[derive(Debug)]
pub(crate) struct Failure(pub(crate) String);

impl Failure {
    pub(crate) fn print(&self) -> ExitCode {
        // Nobody reads what cannot be written.
        let _ = writeln!(std::io::stderr(), "registry-server: {}", self.0.trim_end());
        ExitCode::FAILURE
    }
}

/// Prints a line. A reader that has enough, such as `head`, is no error.
pub(crate) fn line(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Prints an event for programs.
pub(crate) fn json(event: &impl Serialize) {
    line(&serde_json::to_string(event).unwrap_or_default());
}

/// `3.2 MiB`.
pub(crate) fn bytes(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

/// `1 blob`, `2 blobs`.
pub(crate) fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// On a terminal: bytes done and the time that is left. Elsewhere nothing is drawn.
pub(crate) fn progress_bar() -> ProgressBar {
    let style = "{bar:30} {binary_bytes}/{binary_total_bytes}, {eta} left";
    let style =
        ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(0).with_style(style)
}
