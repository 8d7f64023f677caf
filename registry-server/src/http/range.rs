//! Byte ranges: `Range` of a download (RFC 9110 §14.2) and `Content-Range` of a chunk (end-5).

use crate::registry::upload::ChunkRange;

/// What a `Range` header asks of content of a known size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// All of it: there is no range, or one that may be ignored.
    Whole,
    /// These bytes.
    Part { start: u64, length: u64 },
    /// Bytes that it does not have.
    Nothing,
}

/// Reads a `Range` header. Several ranges at once, and other units than bytes, are ignored.
pub(super) fn wanted(range: &str, size: u64) -> Wanted {
    let Some(spec) = range.trim().strip_prefix("bytes=") else { return Wanted::Whole };
    if spec.contains(',') {
        return Wanted::Whole;
    }
    let Some((first, last)) = spec.split_once('-') else { return Wanted::Whole };
    match (number(first), number(last)) {
        (Number::None, Number::Some(suffix)) => part(size.saturating_sub(suffix), size, size),
        (Number::Some(first), Number::None) => part(first, size, size),
        // Backwards: a range that no content has.
        (Number::Some(first), Number::Some(last)) if last < first => Wanted::Nothing,
        (Number::Some(first), Number::Some(last)) => part(first, last.saturating_add(1), size),
        _ => Wanted::Whole,
    }
}

fn part(start: u64, end: u64, size: u64) -> Wanted {
    let end = end.min(size);
    if start >= end { Wanted::Nothing } else { Wanted::Part { start, length: end - start } }
}

enum Number {
    None,
    Some(u64),
    Unreadable,
}

/// A run of digits; one too long for 64 bits is larger than any content.
fn number(text: &str) -> Number {
    if text.is_empty() {
        Number::None
    } else if text.bytes().all(|b| b.is_ascii_digit()) {
        Number::Some(text.parse().unwrap_or(u64::MAX))
    } else {
        Number::Unreadable
    }
}

/// Reads a chunk's range: `first-last` as the distribution specification writes it, or
/// `bytes first-last/size` as HTTP does.
pub(super) fn chunk(text: &str) -> Option<ChunkRange> {
    let text = text.trim();
    let text = text.strip_prefix("bytes").map_or(text, str::trim_start);
    let text = text.split_once('/').map_or(text, |(range, _size)| range);
    let (first, last) = text.split_once('-')?;
    match (number(first), number(last)) {
        (Number::Some(first), Number::Some(last)) => Some(ChunkRange { first, last }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_range_is_the_bytes_between_its_ends_that_there_are(
            first in 0_u64..50, last in 0_u64..50, size in 0_u64..50,
        ) {
            let found = wanted(&format!("bytes={first}-{last}"), size);
            let expected: Vec<u64> = (0..size).filter(|at| (first..=last).contains(at)).collect();
            match found {
                Wanted::Part { start, length } => {
                    prop_assert_eq!((start..start + length).collect::<Vec<_>>(), expected);
                }
                Wanted::Nothing => prop_assert!(expected.is_empty()),
                Wanted::Whole => prop_assert!(false, "ignored"),
            }
        }

        #[test]
        fn no_range_exceeds_the_content(text in "bytes=[0-9]{0,21}-[0-9]{0,21}", size: u64) {
            if let Wanted::Part { start, length } = wanted(&text, size) {
                let end = start.checked_add(length);
                prop_assert!(length > 0 && end.is_some_and(|end| end <= size));
            }
        }

        #[test]
        fn a_chunks_range_is_read_the_same_in_both_forms(first: u64, last: u64) {
            let expected = Some(ChunkRange { first, last });
            prop_assert_eq!(chunk(&format!("{first}-{last}")), expected);
            prop_assert_eq!(chunk(&format!("bytes {first}-{last}/*")), expected);
        }
    }

    #[test]
    fn ranges_are_cut_to_the_content() {
        let part = |start, length| Wanted::Part { start, length };
        for (range, expected) in [
            ("bytes=500-1499", part(500, 1000)),
            ("bytes=500-", part(500, 1500)),
            ("bytes=-500", part(1500, 500)),
            ("bytes=-5000", part(0, 2000)),
            ("bytes=0-0", part(0, 1)),
            ("bytes=1999-99999999999999999999999", part(1999, 1)),
            ("bytes=2000-5000", Wanted::Nothing),
            ("bytes=500-0", Wanted::Nothing),
            ("bytes=-0", Wanted::Nothing),
            ("bytes=0-1,5-6", Wanted::Whole),
            ("bytes=-", Wanted::Whole),
            ("bytes=a-b", Wanted::Whole),
            ("bytes=+1-2", Wanted::Whole),
            ("lines=0-1", Wanted::Whole),
            ("", Wanted::Whole),
        ] {
            assert_eq!(wanted(range, 2000), expected, "{range}");
        }
        assert_eq!(wanted("bytes=0-", 0), Wanted::Nothing);
    }

    #[test]
    fn chunk_ranges_are_two_numbers() {
        let expected = ChunkRange { first: 0, last: 9 };
        for good in ["0-9", "bytes 0-9/10", "bytes 0-9/*"] {
            assert_eq!(chunk(good), Some(expected), "{good}");
        }
        for bad in ["", "-", "0-", "-9", "a-b", "0", "-1-2", "bytes=0-9"] {
            assert_eq!(chunk(bad), None, "{bad}");
        }
    }
}
