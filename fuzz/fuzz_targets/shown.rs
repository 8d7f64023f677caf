//! Text that comes from elsewhere, on its way to a terminal or a log.
//!
//! What is printed moves no cursor, turns nothing around and ends no line that did not end; the rest
//! stays as it is, and JSON means the same afterwards.
#![no_main]

use berth_fuzz::shared::shown::{json, lines, shown};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let printed = shown(text).to_string();
    assert!(!printed.contains(is_harmful), "{printed:?}");
    assert_eq!(text.contains(is_harmful), printed != text);

    let several = lines(text);
    assert!(several.split('\n').eq(text.split('\n').map(|line| shown(line).to_string())));

    let written = serde_json::to_string(text).expect("text is JSON");
    let printed = json(&written);
    assert!(!printed.contains(is_harmful), "{printed:?}");
    assert_eq!(serde_json::from_str::<String>(&printed).ok().as_deref(), Some(text));
});

/// Controls (C0, DEL, C1), separators of lines and paragraphs, and the marks, embeddings, overrides
/// and isolates of UAX #9.
fn is_harmful(c: char) -> bool {
    matches!(c,
        '\0'..='\x1f' | '\x7f'..='\u{9f}' | '\u{2028}' | '\u{2029}'
        | '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
