//! The shape of the sources: what may use what, how long files are, and that each says what it is.

use std::fs;

use crate::sources::{Source, nothing, root, sources};

/// Lines in a file at most.
const LINES_MAX: usize = 500;

/// The modules of `shared` that perform no input or output.
const VOCABULARY: [&str; 15] = [
    "action",
    "claims",
    "clock",
    "digest",
    "error",
    "keys",
    "auth_api",
    "name",
    "pattern",
    "reference",
    "rights",
    "scope",
    "subject",
    "tag",
    "token",
];

fn all() -> Vec<Source> {
    let sources = sources(&["auth-server", "registry-server", "shared", "tests"]);
    assert!(sources.len() > 50, "the sources were not found");
    sources
}

/// The lines of code, with numbers: no comments.
fn code(source: &Source) -> impl Iterator<Item = (usize, &str)> {
    let lines = source.text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
    lines.filter(|(_, line)| !line.starts_with("//"))
}

/// Where one of `words` is used as a path.
fn uses(source: &Source, words: &[&str]) -> Vec<String> {
    let is_used = |line: &str, word: &str| {
        line.contains(&format!("{word}::")) || line.contains(&format!("use {word};"))
    };
    code(source)
        .filter(|(_, line)| words.iter().any(|word| is_used(line, word)))
        .map(|(number, line)| format!("{}:{number}: {line}", source.path))
        .collect()
}

#[test]
fn the_vocabulary_performs_no_input_or_output() {
    let is_of = |source: &Source, module: &str| {
        source.path == format!("shared/src/{module}.rs")
            || source.path.starts_with(&format!("shared/src/{module}/"))
    };
    let sources = all();
    for module in VOCABULARY {
        assert!(sources.iter().any(|source| is_of(source, module)), "{module} is gone");
    }
    let is_vocabulary = |source: &&Source| VOCABULARY.iter().any(|module| is_of(source, module));
    let modules: Vec<_> = sources.iter().filter(is_vocabulary).collect();
    let words = ["axum", "tokio", "hyper", "std::fs", "fs", "std::net", "std::env"];
    nothing(&modules.iter().flat_map(|source| uses(source, &words)).collect::<Vec<_>>());
}

#[test]
fn sql_stays_in_the_modules_that_keep() {
    let sources = all();
    let others = sources.iter().filter(|source| {
        let registry = source.path.starts_with("registry-server/src/")
            && !source.path.starts_with("registry-server/src/metadata/");
        let auth = source.path.starts_with("auth-server/src/")
            && !source.path.starts_with("auth-server/src/database/");
        // The tests of the statements themselves, in both.
        let is_about_them = source.path.contains("/src/statements");
        let shared = source.path.starts_with("shared/src/")
            && !source.path.starts_with("shared/src/database/")
            && !source.path.starts_with("shared/src/sqlite/");
        !is_about_them && (registry || auth || shared)
    });
    nothing(&others.flat_map(|source| uses(source, &["sqlx"])).collect::<Vec<_>>());
}

#[test]
fn signing_stays_in_auth_server() {
    let sources = all();
    let verifiers = sources.iter().filter(|source| {
        source.path.starts_with("registry-server/src/") || source.path.starts_with("shared/src/")
    });
    let words = ["EcdsaKeyPair", "Ed25519KeyPair", "EncodingKey", "jsonwebtoken::encode"];
    nothing(&verifiers.flat_map(|source| uses(source, &words)).collect::<Vec<_>>());
}

#[test]
fn no_file_is_too_long_to_read() {
    let too_long = |source: Source| {
        let lines = source.text.lines().count();
        (lines > LINES_MAX).then(|| format!("{}: {lines} lines", source.path))
    };
    nothing(&all().into_iter().filter_map(too_long).collect::<Vec<_>>());
}

#[test]
fn every_file_begins_by_saying_what_it_is() {
    let silent = all().into_iter().filter(|source| !source.text.starts_with("//! "));
    nothing(&silent.map(|source| source.path).collect::<Vec<_>>());
}

#[test]
fn nothing_is_left_for_later() {
    // Put together here, lest this file find itself.
    let words =
        ["TO", "FIX"].map(|start| start.to_owned() + if start == "TO" { "DO" } else { "ME" });
    let mut found = Vec::new();
    for source in all() {
        for (index, line) in source.text.lines().enumerate() {
            if words.iter().any(|word| line.contains(word.as_str())) {
                found.push(format!("{}:{}: {}", source.path, index + 1, line.trim()));
            }
        }
    }
    nothing(&found);
}

/// The tests that `docs/AUTH.md` names, as `file.rs::name` or `script.sh`: those of this program
/// without their folder, others from the workspace's root.
#[test]
fn the_tests_that_the_tables_of_auth_name_are_there() {
    let root = root();
    let text = fs::read_to_string(root.join("docs/AUTH.md")).expect("docs/AUTH.md");
    let quoted = text.split('`').skip(1).step_by(2);
    let mut named = 0;
    let is_missing = |word: &&str| {
        if let Some(script) = word.strip_suffix(".sh") {
            named += 1;
            return !root.join(format!("tests/interop/{script}.sh")).exists();
        }
        let Some((file, name)) = word.split_once(".rs::") else { return false };
        named += 1;
        let folder = if file.contains('/') { root.clone() } else { root.join("tests/it") };
        let source = fs::read_to_string(folder.join(format!("{file}.rs"))).unwrap_or_default();
        !source.contains(&format!("fn {name}("))
    };
    let missing: Vec<_> = quoted.filter(is_missing).map(ToOwned::to_owned).collect();
    nothing(&missing);
    assert!(named > 50, "only {named} tests are named");
}

#[test]
fn the_image_is_built_of_every_crate() {
    let read = |name: &str| fs::read_to_string(root().join(name)).unwrap();
    let (workspace, recipe, context) =
        (read("Cargo.toml"), read("Dockerfile"), read(".dockerignore"));
    let members = workspace.lines().find_map(|line| line.strip_prefix("members = [")).unwrap();
    let members: Vec<&str> = members.split('"').skip(1).step_by(2).collect();
    assert!(members.contains(&"registry-server"), "{members:?}");
    for member in members {
        assert!(recipe.lines().any(|line| line == format!("COPY {member} {member}")), "{member}");
        assert!(context.lines().any(|line| line == format!("!{member}")), "{member}");
    }
}
