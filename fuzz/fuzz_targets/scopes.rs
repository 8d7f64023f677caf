//! The `scope` parameters of a token request, one per line.
//!
//! What is understood is harmless, holds no action that was not asked for, and is written back the
//! same; how the scopes are spread over parameters says nothing.
#![no_main]

use std::collections::BTreeSet;

use berth_fuzz::{
    assert_harmless,
    shared::{
        action::Action,
        claims::Access,
        scope::{SCOPES_MAX, Scope},
    },
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let scopes = Scope::parse_all(text.split('\n'));
    assert!(scopes.len() <= SCOPES_MAX);
    assert_eq!(Scope::parse_all([text.replace('\n', " ").as_str()]), scopes);

    let written: Vec<String> = scopes.iter().map(ToString::to_string).collect();
    assert_eq!(Scope::parse_all(written.iter().map(String::as_str)), scopes);
    assert_eq!(Scope::parse_all([written.join(" ").as_str()]), scopes);

    let mut known = BTreeSet::new();
    for (scope, written) in scopes.iter().zip(&written) {
        assert_eq!(Scope::parse(written).as_ref(), Some(scope));
        let access = Access::from(scope);
        assert!(known.insert((access.kind, access.name)), "{written} stands there twice");
        if let Scope::Repository { name, .. } = scope {
            assert_harmless(name);
        }
    }
    text.split(['\n', ' ']).for_each(check_word);
});

/// An action is in a scope exactly when the word behind the last colon says so.
fn check_word(word: &str) {
    let Some(Scope::Repository { name, actions }) = Scope::parse(word) else { return };
    let (before, asked) = word.rsplit_once(':').expect("a scope has colons");
    assert!(before.ends_with(&format!(":{name}")), "{word}");
    assert!(!actions.is_empty());
    for action in Action::ALL {
        let is_asked = asked.split(',').any(|word| word == "*" || word == action.word());
        assert_eq!(actions.contains(action), is_asked, "{action} in {word}");
    }
}
