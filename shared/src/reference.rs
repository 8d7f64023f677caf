//! A reference names a manifest within a repository: by tag or by digest.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{digest::Digest, tag::Tag, text::through_text};

/// What stands behind `/manifests/`: a tag or a digest.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Reference {
    /// By digest: always the same bytes.
    Digest(Digest),
    /// By tag: whatever the tag points to now.
    Tag(Tag),
}

/// The text is neither a tag nor a digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidReference {
    /// It holds a colon, so a digest was meant.
    #[error("the reference holds a colon but is no digest that Berth knows")]
    Digest,
    /// It was meant as a tag.
    #[error("the reference is neither a tag nor a digest")]
    Tag,
}

impl FromStr for Reference {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.contains(':') {
            text.parse().map(Self::Digest).map_err(|_| InvalidReference::Digest)
        } else {
            text.parse().map(Self::Tag).map_err(|_| InvalidReference::Tag)
        }
    }
}

through_text!(Reference: InvalidReference);

impl Reference {
    /// Its text, as it stands in a path.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Digest(digest) => digest.as_str(),
            Self::Tag(tag) => tag.as_str(),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_reference_is_a_digest_or_a_tag_and_written_as_it_was_read(
            text in "sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}|[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}",
        ) {
            let reference: Reference = text.parse().unwrap();
            prop_assert_eq!(matches!(reference, Reference::Digest(_)), text.contains(':'));
            prop_assert_eq!(reference.to_string(), text);
        }

        #[test]
        fn a_colon_says_which_of_the_two_was_meant(text in "[a-z:./-]{0,9}") {
            if let Err(error) = text.parse::<Reference>() {
                prop_assert_eq!(error == InvalidReference::Digest, text.contains(':'));
            }
        }
    }
}
