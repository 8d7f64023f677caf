//! The size of a blob, a space, and what stands in a `Range` or `Content-Range` header.
//!
//! A range lies within the content, and is the one that arithmetic without limits finds; a chunk's
//! range is read the same in both of its forms.
#![no_main]

use libfuzzer_sys::fuzz_target;
use registry_server::fuzzing::{content_range, range};

fuzz_target!(|text: &str| {
    let Some((size, header)) = text.split_once(' ') else { return };
    let Ok(size) = size.parse() else { return };
    check_range(header, size);
    check_content_range(header);
});

fn check_range(header: &str, size: u64) {
    let found = range(header, size);
    if let Some(found) = &found {
        assert!(found.start <= found.end && found.end <= size, "{found:?} of {size}");
    }
    let found = found.map(|found| found.map_u128());
    assert_eq!(found, expected(header.trim(), size.into()), "{header:?} of {size}");
}

/// RFC 9110 §14.1.2 in numbers that do not overflow; `None` where the header is ignored.
fn expected(header: &str, size: u128) -> Option<(u128, u128)> {
    let (first, last) = header.strip_prefix("bytes=")?.split_once('-')?;
    let (start, end) = match (number(first)?, number(last)?) {
        (None, None) => return None,
        (None, Some(suffix)) => (size.saturating_sub(suffix), size),
        (Some(first), None) => (first, size),
        (Some(first), Some(last)) => (first, size.min(last + 1)),
    };
    Some(if start < end { (start, end) } else { (0, 0) })
}

/// `None` where there are other letters than digits, `Some(None)` where there is nothing.
fn number(text: &str) -> Option<Option<u128>> {
    if text.is_empty() {
        return Some(None);
    }
    text.bytes()
        .try_fold(0_u128, |number, digit| {
            let digit = char::from(digit).to_digit(10)?;
            // Larger than any size, and far from the end of 128 bits.
            Some((number * 10 + u128::from(digit)).min(1 << 100))
        })
        .map(Some)
}

fn check_content_range(header: &str) {
    let Some((first, last)) = content_range(header) else { return };
    for written in [
        format!("{first}-{last}"),
        format!("bytes {first}-{last}/*"),
        format!("bytes {first}-{last}/{}", u128::from(last) + 1),
    ] {
        assert_eq!(content_range(&written), Some((first, last)), "{written}");
    }
    let digits = header.bytes().filter(u8::is_ascii_digit).count();
    assert!(digits >= 2, "{header:?} became {first}-{last}");
}

trait Wide {
    fn map_u128(&self) -> (u128, u128);
}

impl Wide for std::ops::Range<u64> {
    fn map_u128(&self) -> (u128, u128) {
        (self.start.into(), self.end.into())
    }
}
