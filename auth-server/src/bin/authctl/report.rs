//! What a verb has to say, as text for people and as JSON for programs, and its exit code.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use auth_server::admin::Warning;
use berth_shared::{
    shown::{self, shown},
    telemetry::chain,
};
use serde_json::{Value, json};

/// The result of a verb.
pub(crate) struct Report {
    /// For people; lines without the last newline.
    pub(crate) text: String,
    /// For programs.
    pub(crate) json: Value,
    /// The verb did what it could, or has an answer, but the answer is no.
    pub(crate) is_no: bool,
}

/// Why a verb did nothing.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) reason: String,
    code: u8,
}

/// What came of a verb.
pub(crate) type Told = Result<Report, Failure>;

impl Report {
    /// A report that all went well.
    pub(crate) fn done(text: impl Into<String>, json: Value) -> Self {
        Self { text: text.into(), json, is_no: false }
    }

    /// A list: a [`table`] for people, or what to do where there is nothing in it, and the same
    /// objects for programs, but for a `remark`.
    pub(crate) fn list<const N: usize>(
        mut objects: Vec<Value>,
        headings: [&str; N],
        keys: [&str; N],
        empty: &str,
    ) -> Self {
        let text = match objects.as_slice() {
            [] => empty.to_owned(),
            objects => table(headings, keys, "never", objects),
        };
        for object in objects.iter_mut().filter_map(Value::as_object_mut) {
            object.remove("remark");
        }
        Self::done(text, Value::Array(objects))
    }

    pub(crate) fn print(&self, is_json: bool) -> ExitCode {
        let told = match &self.text {
            _ if is_json && !self.json.is_null() => print_json(&self.json),
            text if text.is_empty() => Ok(()),
            text => print_lines(io::stdout(), text),
        };
        match told {
            Ok(()) => ExitCode::from(u8::from(self.is_no)),
            // What a file was to hold, or a secret that is shown once, is lost.
            Err(error) => Failure::refused(format!(
                "what was asked for is done, but the answer could not be written: {error}"
            ))
            .print(false),
        }
    }
}

impl Failure {
    /// It cannot be done.
    pub(crate) fn refused(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), code: 1 }
    }

    /// It was asked for in the wrong way.
    pub(crate) fn usage(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), code: 2 }
    }

    pub(crate) fn print(&self, is_json: bool) -> ExitCode {
        let Self { reason, code } = self;
        // Where that cannot be told either, the exit code says it.
        if is_json {
            let _ = print_json(&json!({ "error": reason }));
        }
        let _ = print_lines(io::stderr(), &format!("authctl: {}", reason.trim_end()));
        ExitCode::from(*code)
    }
}

/// Refuses what is asked for if something is wrong with it.
pub(crate) fn refuse_if(is_wrong: bool, reason: impl FnOnce() -> String) -> Result<(), Failure> {
    if is_wrong { Err(Failure::refused(reason())) } else { Ok(()) }
}

/// How to say that something is removed, and what that makes void, or would.
pub(crate) fn removal(is_dry: bool) -> [&'static str; 2] {
    if is_dry { ["would remove", "would be"] } else { ["removed", "are"] }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::refused(chain(&error))
    }
}

/// Says something that a person should know, beside what the verb does.
pub(crate) fn warn(text: &str) {
    let _ = print_lines(io::stderr(), &format!("authctl: warning: {text}"));
}

/// Says all of them.
pub(crate) fn warn_of(warnings: &[Warning]) {
    for warning in warnings {
        warn(&warning.to_string());
    }
}

fn print_json(json: &Value) -> io::Result<()> {
    print(io::stdout(), &shown::json(&json.to_string()))
}

/// Writes lines, in which names may come from elsewhere.
fn print_lines(to: impl Write, text: &str) -> io::Result<()> {
    print(to, &shown::lines(text))
}

/// Writes text with an end of line. A reader that has gone away, as with `| head`, is no failure.
fn print(mut to: impl Write, text: &str) -> io::Result<()> {
    match writeln!(to, "{text}").and_then(|()| to.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

/// Objects under headings, aligned: of each what is under `keys`, or `none` where that is nothing.
pub(crate) fn table<const N: usize>(
    headings: [&str; N],
    keys: [&str; N],
    none: &str,
    objects: &[Value],
) -> String {
    // A cell is a part of one line, whatever it holds.
    let row = |object: &Value| keys.map(|key| shown(&cell(&object[key], none)).to_string());
    let mut rows: Vec<[String; N]> = vec![headings.map(str::to_owned)];
    rows.extend(objects.iter().map(row));
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<_> = (0..N).filter_map(width).collect();
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(&widths);
        let padded: Vec<_> = cells.map(|(cell, &width)| format!("{cell:width$}")).collect();
        padded.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn cell(value: &Value, none: &str) -> String {
    match value {
        Value::Null => none.to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(all) => all.iter().map(|it| cell(it, none)).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_move_the_cursor_or_add_a_line_is_written_out() {
        let mut told = Vec::new();
        let objects = [json!({ "name": "a\x1b[2J", "x": "b\nc" })];
        print_lines(&mut told, &table(["NAME", "X"], ["name", "x"], "", &objects)).unwrap();
        print_lines(&mut told, "no such user: \u{202e}\u{9b}\r").unwrap();
        let expected = "NAME        X\na\\u{1b}[2J  b\\nc\nno such user: \\u{202e}\\u{9b}\\r\n";
        assert_eq!(String::from_utf8(told).unwrap(), expected);
    }

    #[test]
    fn tables_are_aligned_and_end_without_blanks() {
        let objects = [json!({ "name": "andrew", "x": ["a", 1] }), json!({ "name": "b" })];
        let shown = table(["NAME", "X"], ["name", "x"], "-", &objects);
        assert_eq!(shown, "NAME    X\nandrew  a, 1\nb       -");
    }
}
