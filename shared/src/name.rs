//! Repository names, by the grammar of the OCI distribution specification ("Pulling manifests").

use crate::text::text_value;

/// The longest repository name accepted, in bytes: many clients limit host and name together to 255.
pub const NAME_BYTES_MAX: usize = 255;

text_value! {
    /// A repository name such as `team/app`: one or more path segments of
    /// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`, joined by `/`, 255 bytes at most.
    pub struct RepositoryName: InvalidName, check
}

/// The text is not a repository name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a repository name: use lower-case letters, digits and single separators (. _ __ -) \
     in segments joined by /, {NAME_BYTES_MAX} bytes at most"
)]
pub struct InvalidName;

fn check(text: &str) -> Result<(), InvalidName> {
    let is_name = text.len() <= NAME_BYTES_MAX && text.split('/').all(is_segment);
    is_name.then_some(()).ok_or(InvalidName)
}

/// Whether `segment` is one path segment of a repository name.
pub(crate) fn is_segment(segment: &str) -> bool {
    let bytes = segment.as_bytes();
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    if !alphanumeric(first) || !alphanumeric(last) {
        return false;
    }
    bytes
        .split(alphanumeric)
        .filter(|run| !run.is_empty())
        .all(|run| matches!(run, b"." | b"_" | b"__") || run.iter().all(|b| *b == b'-'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_name_is_written_as_it_was_read(
            text in "[a-z0-9]{1,5}((\\.|_|__|-{1,3}|/)[a-z0-9]{1,5}){0,8}",
        ) {
            let name: RepositoryName = text.parse().unwrap();
            prop_assert_eq!(name.to_string(), text);
        }

        #[test]
        fn what_is_read_as_a_name_needs_no_escape(text in "[a-z./_%\0-]{1,6}|.{0,20}") {
            if let Ok(name) = text.parse::<RepositoryName>() {
                prop_assert!(!name.as_str().contains("..") && !name.as_str().contains("//"));
                prop_assert!(!name.as_str().contains(['%', '\0', ':', '\\', ' ']));
            }
        }
    }

    #[test]
    fn each_rule_of_the_grammar_has_a_case_just_inside_and_just_outside() {
        let longest = "a".repeat(NAME_BYTES_MAX);
        for good in ["a", "0", "a/b", "a.b", "a_b", "a__b", "a-b", "a---b", "a/blobs/b", &longest] {
            assert!(good.parse::<RepositoryName>().is_ok(), "{good}");
        }
        let too_long = "a".repeat(NAME_BYTES_MAX + 1);
        for bad in [
            "",
            "/",
            "a/",
            "/a",
            "a//b",
            "A",
            "a.",
            ".a",
            "_a",
            "a_",
            "-a",
            "a-",
            "a..b",
            "a___b",
            "a._b",
            "a.-b",
            "a/../b",
            "..",
            "a:b",
            "a b",
            "a%2fb",
            "a\0b",
            "é",
            "host:5000/x",
            &too_long,
        ] {
            assert!(bad.parse::<RepositoryName>().is_err(), "{bad}");
        }
    }
}
