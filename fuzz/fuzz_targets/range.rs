//! The size of a blob, a space, and what stands in a `Range` or `Content-Range` header.
//!
//! Ranges lie within the content, none twice, and are those that arithmetic without limits finds; a chunk's range is read the same in both of its forms.
#![no_main]

use libfuzzer_sys::fuzz_target;
use registry_server::fuzzing::{content_range, ranges};

fuzz_target!(|text: &str| {
    let Some((size, header)) = text.split_once(' ') else { return };
    let Ok(size) = size.parse() else { return };
    check_range(header, size);
    check_content_range(header);
});

fn check_range(header: &str, size: u64) {
    let found = ranges(header, size);
    for part in found.iter().flatten() {
        assert!(part.start < part.end && part.end <= size, "{part:?} of {size}");
    }
    let found = found.map(|parts| {
        parts.iter().map(|part| (part.start.into(), part.end.into())).collect::<Vec<_>>()
    });
    assert_eq!(found, expected(header.trim(), size.into()), "{header:?} of {size}");
}

/// RFC 9110 §14.1.2 in numbers that do not overflow, and what overlaps as one; `None` where the header
/// is ignored.
fn expected(header: &str, size: u128) -> Option<Vec<(u128, u128)>> {
    let specs = header.strip_prefix("bytes=")?.split(',').map(str::trim);
    let specs: Vec<_> = specs.filter(|spec| !spec.is_empty()).collect();
    if !(1..=256).contains(&specs.len()) {
        return None;
    }
    let mut parts = specs.into_iter().map(|spec| one(spec, size)).collect::<Option<Vec<_>>>()?;
    parts.retain(|(start, end)| start < end);
    let mut sorted = parts.clone();
    sorted.sort_unstable();
    let mut joined: Vec<(u128, u128)> = Vec::new();
    for (start, end) in sorted {
        match joined.last_mut() {
            Some(last) if start < last.1 => last.1 = last.1.max(end),
            _ => joined.push((start, end)),
        }
    }
    Some(if joined.len() < parts.len() { joined } else { parts })
}

fn one(spec: &str, size: u128) -> Option<(u128, u128)> {
    let (first, last) = spec.split_once('-')?;
    Some(match (number(first)?, number(last)?) {
        (None, None) => return None,
        (None, Some(suffix)) => (size.saturating_sub(suffix), size),
        (Some(first), None) => (first, size),
        (Some(first), Some(last)) => (first, size.min(last + 1)),
    })
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
