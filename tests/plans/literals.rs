//! The statements that stand in sources, as string literals.

use std::{fmt, fs, path::Path};

/// What a statement begins with.
const VERBS: [&str; 13] = [
    "SELECT",
    "INSERT",
    "UPDATE",
    "DELETE",
    "WITH",
    "PRAGMA",
    "VACUUM",
    "BEGIN",
    "COMMIT",
    "ROLLBACK",
    "SAVEPOINT",
    "RELEASE",
    "CREATE",
];

/// What stands in the path of a source that is built for tests alone.
const OF_TESTS: [&str; 5] = ["faults", "statements", "tests.rs", "samples.rs", "races.rs"];

/// What is said to PostgreSQL alone, which does not answer here: `tests/interop/postgres.sh` runs it.
const OF_POSTGRES: [&str; 7] = [
    "database/postgres",
    "database/sealed_key.rs",
    "database/signing_keys",
    "database/user_table.rs",
    "metadata/postgres",
    "metadata/lock.rs",
    "metadata/copy.rs",
];

/// A statement as it stands in a source; something may be put in where braces are.
pub(crate) struct Literal {
    file: String,
    text: String,
}

impl Literal {
    /// Whether it begins with this word.
    pub(crate) fn begins_with(&self, word: &str) -> bool {
        self.text.starts_with(word)
    }

    /// Whether this is where the statement comes from.
    pub(crate) fn matches(&self, statement: &str) -> bool {
        let mut rest = statement;
        let mut parts = self.text.split(['{', '}']).step_by(2);
        let first = parts.next().unwrap_or_default();
        let Some(behind) = rest.strip_prefix(first) else { return false };
        rest = behind;
        for part in parts {
            let Some(at) = rest.rfind(part) else { return false };
            rest = &rest[at + part.len()..];
        }
        rest.is_empty()
    }
}

impl fmt::Display for Literal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file, self.text)
    }
}

/// The statements of the sources below `root`: those of the program, and those of its tests.
pub(crate) fn of(root: &Path) -> (Vec<Literal>, Vec<Literal>) {
    let (mut own, mut of_tests) = (Vec::new(), Vec::new());
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let file = path.strip_prefix(root).unwrap_or(&path).display().to_string();
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            let is_of_postgres = OF_POSTGRES.iter().any(|part| file.starts_with(part));
            if !file.ends_with(".rs") || is_of_postgres {
                continue;
            }
            let source = fs::read_to_string(&path).unwrap();
            let (program, tests) = apart(&source);
            let is_test = OF_TESTS.iter().any(|part| file.contains(part));
            let to = if is_test { &mut of_tests } else { &mut own };
            to.extend(statements(&program).map(|text| Literal { file: file.clone(), text }));
            of_tests.extend(statements(&tests).map(|text| Literal { file: file.clone(), text }));
        }
    }
    (own, of_tests)
}

/// What is built always, and what only for tests, by the form that rustfmt gives to both.
fn apart(source: &str) -> (String, String) {
    let (mut program, mut tests) = (String::new(), String::new());
    let mut ends_at = None;
    for line in source.lines() {
        let indent = &line[..line.len() - line.trim_start().len()];
        if ends_at.is_none() && line.trim() == "#[cfg(test)]" {
            ends_at = Some(format!("{indent}}}"));
        }
        let to = if ends_at.is_some() { &mut tests } else { &mut program };
        to.push_str(line);
        to.push('\n');
        let is_item = !line.trim_start().starts_with('#') && line.ends_with(';');
        let is_end = |end: &String| line == end || (is_item && end.len() == indent.len() + 1);
        if ends_at.as_ref().is_some_and(is_end) {
            ends_at = None;
        }
    }
    (program, tests)
}

fn statements(source: &str) -> impl Iterator<Item = String> {
    let texts = strings(source).into_iter().map(|text| spaced(&text));
    texts.filter(|text| {
        VERBS.iter().any(|verb| {
            text.strip_prefix(verb).is_some_and(|rest| {
                rest.starts_with(' ') || (rest.is_empty() && ["COMMIT", "ROLLBACK"].contains(verb))
            })
        })
    })
}

/// The text with single spaces.
pub(crate) fn spaced(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The string literals.
fn strings(source: &str) -> Vec<String> {
    let mut strings = Vec::new();
    let mut rest = source;
    while let Some(at) = rest.find(['"', '\'', '/']) {
        let (before, from) = rest.split_at(at);
        rest = &from[1..];
        if from.starts_with("//") {
            rest = from.split_once('\n').map_or("", |(_, behind)| behind);
        } else if from.starts_with("'\"'") || from.starts_with("'\\") {
            rest = from.get(3..).unwrap_or_default();
        } else if from.starts_with('"') {
            let hashes = before.len() - before.trim_end_matches('#').len();
            let is_raw = before.trim_end_matches('#').ends_with('r');
            let end = format!("\"{}", "#".repeat(hashes));
            let length = if is_raw { rest.find(&end) } else { end_of(rest) };
            let Some(length) = length else { break };
            let text = &rest[..length];
            strings.push(if is_raw { text.to_owned() } else { unescaped(text) });
            rest = &rest[length + 1..];
        }
    }
    strings
}

/// Where a string ends that is not raw.
fn end_of(text: &str) -> Option<usize> {
    let mut is_escaped = false;
    text.bytes().position(|byte| {
        let ends = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        ends
    })
}

/// Without the line breaks that a backslash hides, and with quotes as they are meant.
fn unescaped(text: &str) -> String {
    text.replace("\\\n", "").replace("\\\"", "\"")
}
