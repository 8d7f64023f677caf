//! Tags: `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`.

use crate::text::text_value;

/// The longest tag accepted, in bytes.
pub const TAG_BYTES_MAX: usize = 128;

text_value! {
    /// A tag such as `v1.2` or `latest`.
    pub struct Tag: InvalidTag, check
}

/// The text is not a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a tag: a letter, digit or _ and then up to 127 letters, digits, . _ or -")]
pub struct InvalidTag;

fn check(text: &str) -> Result<(), InvalidTag> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let mut bytes = text.bytes();
    let first_is_word = bytes.next().is_some_and(word);
    let rest_fits = bytes.all(|b| word(b) || b == b'.' || b == b'-');
    (first_is_word && rest_fits && text.len() <= TAG_BYTES_MAX).then_some(()).ok_or(InvalidTag)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_tag_is_written_as_it_was_read(text in "[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}") {
            let tag: Tag = text.parse().unwrap();
            prop_assert_eq!(tag.to_string(), text);
        }
    }

    #[test]
    fn tags_follow_their_grammar() {
        let longest = "a".repeat(TAG_BYTES_MAX);
        for good in ["latest", "v1.2-rc_3", "_", "A", "0", &longest] {
            assert!(good.parse::<Tag>().is_ok(), "{good}");
        }
        let too_long = "a".repeat(TAG_BYTES_MAX + 1);
        for bad in ["", ".", "-a", "a/b", "a:b", "a b", "é", "a\n", &too_long] {
            assert!(bad.parse::<Tag>().is_err(), "{bad}");
        }
    }
}
