//! What the fuzz targets share.

pub use registry_server::fuzzing::shared;

use shared::name::{NAME_BYTES_MAX, RepositoryName};

/// Asserts what everything behind the parsers relies on: a repository name stays a relative path
/// below its directory, and needs no escape in a path, a header or a log line.
pub fn assert_harmless(name: &RepositoryName) {
    let text = name.as_str();
    assert!(text.len() <= NAME_BYTES_MAX, "too long: {text:?}");
    assert!(!text.contains(".."), "climbs: {text:?}");
    for segment in text.split('/') {
        let is_end = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
        let bytes = segment.as_bytes();
        assert!(is_end(bytes.first()) && is_end(bytes.last()), "segment {segment:?} of {text:?}");
        let is_plain = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(b);
        assert!(bytes.iter().all(is_plain), "segment {segment:?} of {text:?}");
    }
    assert_eq!(text.parse().as_ref(), Ok(name));
}
