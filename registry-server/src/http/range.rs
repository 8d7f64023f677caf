//! Byte ranges: `Range` of a download (RFC 9110 §14.2) and `Content-Range` of a chunk (end-5).

use std::ops::Range;

use crate::registry::upload::ChunkRange;

/// How many ranges one request may ask for: each is opened and read by itself. One that asks for
/// more gets the whole.
const RANGES_MAX: usize = 256;

/// What a `Range` header asks of content of a known size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    /// All of it: there is no range, or one that may be ignored.
    Whole,
    /// These bytes: one range at least, none of them empty, none twice.
    Parts(Vec<Range<u64>>),
    /// Bytes that it does not have.
    Nothing,
}

/// Reads a `Range` header. Ranges stay as they are and in their order, since clients count on it, but
/// those that the content does not have are left out, and where some overlap they are joined
/// (RFC 9110 §15.3.7.2). Other units than bytes are ignored.
pub(super) fn wanted(range: &str, size: u64) -> Wanted {
    let Some(set) = range.trim().strip_prefix("bytes=") else { return Wanted::Whole };
    let specs = set.split(',').map(str::trim).filter(|spec| !spec.is_empty());
    let specs: Vec<&str> = specs.take(RANGES_MAX + 1).collect();
    if specs.len() > RANGES_MAX || specs.is_empty() {
        return Wanted::Whole;
    }
    let parts = specs.into_iter().map(|spec| part(spec, size)).collect::<Option<Vec<_>>>();
    let Some(mut parts) = parts else { return Wanted::Whole };
    parts.retain(|part| !part.is_empty());
    match joined(parts.clone()) {
        apart if apart.is_empty() => Wanted::Nothing,
        apart if apart.len() < parts.len() => Wanted::Parts(apart),
        _ => Wanted::Parts(parts),
    }
}

/// The same bytes, ascending and each once.
fn joined(mut parts: Vec<Range<u64>>) -> Vec<Range<u64>> {
    parts.sort_by_key(|part| part.start);
    parts.dedup_by(|next, part| {
        let overlaps = next.start < part.end;
        if overlaps {
            part.end = part.end.max(next.end);
        }
        overlaps
    });
    parts
}

/// The bytes of one range: none where the content has none of them, `None` where it cannot be read.
fn part(spec: &str, size: u64) -> Option<Range<u64>> {
    match spec.split_once('-')? {
        ("", suffix) => Some(size.saturating_sub(number(suffix)?)..size),
        (first, "") => Some(number(first)?..size),
        (first, last) => Some(number(first)?..number(last)?.saturating_add(1).min(size)),
    }
}

/// A run of digits; one too long for 64 bits is larger than any content.
fn number(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(u64::MAX))
}

/// Reads a chunk's range: `first-last` as the distribution specification writes it, or
/// `bytes first-last/size` as HTTP does.
pub(super) fn chunk(text: &str) -> Option<ChunkRange> {
    let text = text.trim();
    let text = text.strip_prefix("bytes").map_or(text, str::trim_start);
    let text = text.split_once('/').map_or(text, |(range, _size)| range);
    let (first, last) = text.split_once('-')?;
    Some(ChunkRange { first: number(first)?, last: number(last)? })
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
                Wanted::Parts(parts) => {
                    prop_assert_eq!(parts.into_iter().flatten().collect::<Vec<_>>(), expected);
                }
                Wanted::Nothing => prop_assert!(expected.is_empty()),
                Wanted::Whole => prop_assert!(false, "ignored"),
            }
        }

        #[test]
        fn several_are_all_bytes_of_each_once(
            ends in prop::collection::vec((0_u64..50, 0_u64..50), 1..8), size in 0_u64..50,
        ) {
            let texts = ends.iter().map(|(first, last)| format!("{first}-{last}"));
            let text = format!("bytes={}", texts.collect::<Vec<_>>().join(", "));
            let is_asked = |at: &u64| ends.iter().any(|(first, last)| (first..=last).contains(&at));
            let expected: Vec<u64> = (0..size).filter(is_asked).collect();
            match wanted(&text, size) {
                Wanted::Parts(parts) => {
                    let mut found = parts.into_iter().flatten().collect::<Vec<_>>();
                    found.sort_unstable();
                    prop_assert_eq!(found, expected);
                }
                Wanted::Nothing => prop_assert!(expected.is_empty()),
                Wanted::Whole => prop_assert!(false, "ignored"),
            }
        }

        #[test]
        fn no_range_exceeds_the_content(text in "bytes=[0-9]{0,21}-[0-9]{0,21}", size: u64) {
            if let Wanted::Parts(parts) = wanted(&text, size) {
                prop_assert!(parts.iter().all(|part| part.start < part.end && part.end <= size));
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
        let parts = |parts: &[(u64, u64)]| {
            Wanted::Parts(parts.iter().map(|(start, end)| *start..*end).collect())
        };
        let part = |start, length| parts(&[(start, start + length)]);
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
            ("bytes=0-1,5-6", parts(&[(0, 2), (5, 7)])),
            ("bytes=5-6, 0-1", parts(&[(5, 7), (0, 2)])),
            ("bytes=,0-1, ,5-6,", parts(&[(0, 2), (5, 7)])),
            ("bytes=0-4,5-9", parts(&[(0, 5), (5, 10)])),
            ("bytes=9-9,0-4,4-6", parts(&[(0, 7), (9, 10)])),
            ("bytes=0-9,2-3,5-20", part(0, 21)),
            ("bytes=-5,0-1", parts(&[(1995, 2000), (0, 2)])),
            ("bytes=0-1,5000-6000,9-3", part(0, 2)),
            ("bytes=3000-4000,5000-6000", Wanted::Nothing),
            ("bytes=0-1,x", Wanted::Whole),
            ("bytes=,", Wanted::Whole),
            (&format!("bytes={}", "0-1,".repeat(256)), part(0, 2)),
            (&format!("bytes={}", "0-1,".repeat(257)), Wanted::Whole),
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
