//! What the program prints of a store that somebody else has written.

use std::{
    ffi::OsStr,
    fs,
    os::unix::ffi::OsStrExt,
    path::Path,
    process::{Command, Output},
};

/// Names of directories that are to be taken for repositories and tags.
const NAMES: [&[u8]; 4] = [
    b"\x1b]0;mine\x07\x1b[31mred",
    "gpj.\u{202e}exe".as_bytes(),
    b"a\nimported 1000",
    b"\xff\x9b1m",
];

fn import(root: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_registry-server"))
        .args(["--config", "registry.toml", "import", "old"])
        .args(arguments)
        .current_dir(root)
        .output()
        .expect("running")
}

#[test]
fn names_of_a_hostile_store_do_nothing_to_the_terminal() {
    let directory = tempfile::tempdir().expect("a directory");
    let root = directory.path();
    let config = "listen = '127.0.0.1:0'\npublic_urls = ['http://localhost:5000']\n";
    fs::write(root.join("registry.toml"), config).expect("settings");
    let repositories = root.join("old/docker/registry/v2/repositories");
    for name in NAMES {
        let tags = repositories.join(OsStr::from_bytes(name)).join("_manifests/tags");
        fs::create_dir_all(tags.join(OsStr::from_bytes(name)).join("current")).expect("a tag");
    }
    let tags = repositories.join("app/_manifests/tags");
    for name in NAMES {
        let current = tags.join(OsStr::from_bytes(name)).join("current");
        fs::create_dir_all(&current).expect("a tag");
        fs::write(current.join("link"), name).expect("a link");
    }
    for arguments in [&[][..], &["--json"][..]] {
        let output = import(root, arguments);
        for (printed, is_output) in [(output.stdout, true), (output.stderr, false)] {
            let text = String::from_utf8(printed).expect("text");
            let is_hostile = |c: char| c != '\n' && (c.is_control() || c == '\u{202e}');
            assert!(!text.contains(is_hostile), "{text:?}");
            assert!(!text.lines().any(|line| line.starts_with("imported 1000")), "{text:?}");
            let escape = if arguments.is_empty() { "\\u{202e}" } else { "\\u202e" };
            assert!(!is_output || text.contains(escape), "{text:?}");
        }
    }
}
