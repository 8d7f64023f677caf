//! A pattern and a name, a line each.
//!
//! Patterns are written back the same, and match as the recursive definition says.
#![no_main]

use berth_fuzz::{
    assert_harmless,
    shared::{
        name::{NAME_BYTES_MAX, RepositoryName},
        pattern::Pattern,
    },
};
use libfuzzer_sys::fuzz_target;

/// What the recursion below is left to, since its time has no bound that is worth the name.
const DEPTHS_MAX: usize = 5;
const SEGMENTS_MAX: usize = 16;

fuzz_target!(|text: &str| {
    let Some((pattern, name)) = text.split_once('\n') else { return };
    let name = name.parse::<RepositoryName>();
    if let Ok(name) = &name {
        check_name(name);
    }
    let Ok(pattern) = pattern.parse::<Pattern>() else { return };
    assert_eq!(pattern.to_string().parse().as_ref(), Ok(&pattern));
    assert!(!pattern.as_str().contains("..") && !pattern.as_str().contains(['%', '\0', ':']));
    check_everything(&pattern);
    if let Ok(name) = &name {
        check_match(&pattern, name);
    }
});

fn check_name(name: &RepositoryName) {
    assert_harmless(name);
    assert!(Pattern::everything().matches(name));
    // localhost/app is a name, and as a pattern most likely a mistake.
    if let Ok(own) = name.as_str().parse::<Pattern>() {
        assert!(own.matches(name));
    }
}

fn check_match(pattern: &Pattern, name: &RepositoryName) {
    let matches = pattern.matches(name);
    let pattern_segments: Vec<&str> = pattern.as_str().split('/').collect();
    let name_segments: Vec<&str> = name.as_str().split('/').collect();
    let depths = pattern_segments.iter().filter(|segment| **segment == "**").count();
    if depths <= DEPTHS_MAX && name_segments.len() <= SEGMENTS_MAX {
        assert_eq!(matches, expected(&pattern_segments, &name_segments), "{pattern} ~ {name}");
    }
    for wider in [format!("{pattern}/**"), format!("**/{pattern}")] {
        if let Ok(wider) = wider.parse::<Pattern>() {
            assert!(!matches || wider.matches(name), "{pattern} ~ {name}, and not {wider}");
        }
    }
}

/// The definition of a match.
fn expected(pattern: &[&str], name: &[&str]) -> bool {
    match (pattern, name) {
        ([], []) => true,
        (["**", rest @ ..], _) => (0..=name.len()).any(|skip| expected(rest, &name[skip..])),
        (["*", rest @ ..], [_, name @ ..]) => expected(rest, name),
        ([segment, rest @ ..], [first, name @ ..]) => segment == first && expected(rest, name),
        _ => false,
    }
}

/// A pattern is of everything when it matches names of any depth that hold nothing it says.
fn check_everything(pattern: &Pattern) {
    let mut unheard_of = String::from("z");
    while pattern.as_str().contains(&unheard_of) {
        unheard_of.push('z');
    }
    let deepest = (NAME_BYTES_MAX + 1) / (unheard_of.len() + 1);
    let matches = |depth| {
        let name = vec![unheard_of.as_str(); depth].join("/");
        pattern.matches(&name.parse().expect("a name"))
    };
    let expected = [1, 2, deepest].into_iter().filter(|depth| *depth > 0).all(matches);
    assert_eq!(pattern.matches_everything(), expected, "{pattern}");
}
