//! Patterns of subjects: which `sub` of an issuer's token is meant.
//!
//! Anchored at both ends and compared as bytes. `*` stands for one whole part between `:` and `/`,
//! and never for the first two, which say whose the subject is: `repo:org/…` or
//! `system:serviceaccount:…`. A pattern that leaves them open would trust every customer of the
//! issuer.

use std::str::FromStr;

use super::{Invalid, TEXT_BYTES_MAX, is_text};

/// What parts are told apart by.
const SEPARATORS: [char; 2] = [':', '/'];

/// How many parts at the beginning must be literal.
const LITERAL_PARTS_MIN: usize = 2;

const ANY: &str = "*";

/// A pattern such as `repo:org/app:ref:refs/heads/main` or `repo:org/*:environment:prod`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubjectPattern(String);

impl SubjectPattern {
    /// The pattern as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `subject` is within the pattern.
    pub fn matches(&self, subject: &str) -> bool {
        let (mut wanted, mut parts) = (pieces(&self.0), pieces(subject));
        loop {
            match (wanted.next(), parts.next()) {
                (None, None) => return true,
                (Some(wanted), Some(part)) if fits(wanted, part) => {}
                _ => return false,
            }
        }
    }
}

/// The parts of a text, each with the separator that ends it.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive(SEPARATORS)
}

/// A part without its separator, and the separator.
fn split(piece: &str) -> (&str, &str) {
    piece.split_at(piece.trim_end_matches(SEPARATORS).len())
}

fn fits(wanted: &str, piece: &str) -> bool {
    let ((wanted, end), (part, part_end)) = (split(wanted), split(piece));
    end == part_end && (wanted == part || (wanted == ANY && !part.is_empty()))
}

impl FromStr for SubjectPattern {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if !is_text(text) {
            let rule = "without line ends or blanks around it";
            return Err(Invalid(format!("a subject is 1 to {TEXT_BYTES_MAX} bytes {rule}")));
        }
        // Empty parts say nothing: those of spiffe:// do not count.
        let parts = || pieces(text).map(|piece| split(piece).0).filter(|part| !part.is_empty());
        if parts().take(LITERAL_PARTS_MIN).any(|part| part.contains(ANY)) {
            return Err(Invalid(format!(
                "{text:?} would trust subjects of others: write the first two parts out, as in \
                 repo:org/*:ref:refs/heads/main"
            )));
        }
        if let Some(part) = parts().find(|part| part.contains(ANY) && *part != ANY) {
            return Err(Invalid(format!(
                "{text:?}: * stands for one whole part between : and /, so {part:?} cannot be one"
            )));
        }
        Ok(Self(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_anchored_and_a_star_is_one_part() {
        let main = "repo:org/app:ref:refs/heads/main";
        for (pattern, within, outside) in [
            (
                main,
                vec![main],
                vec![
                    "",
                    "repo:org/app:ref:refs/heads/main2",
                    "repo:org/app:ref:refs/heads/main/x",
                    "repo:org/app:ref:refs/heads/main:x",
                    "repo:org/app:ref:refs/heads/main/",
                    "repo:org/app:ref:refs/heads/Main",
                    "xrepo:org/app:ref:refs/heads/main",
                    " repo:org/app:ref:refs/heads/main",
                    "repo:org/app:ref:refs/heads/main\n",
                    "repo:org/app:ref:refs:heads:main",
                    "repo:org/app:ref:refs/heads",
                    "repo:evil/org/app:ref:refs/heads/main",
                ],
            ),
            (
                "repo:org/*:ref:refs/heads/main",
                vec![main, "repo:org/b:ref:refs/heads/main", "repo:org/*:ref:refs/heads/main"],
                vec![
                    "repo:org/:ref:refs/heads/main",
                    "repo:org/a/b:ref:refs/heads/main",
                    "repo:org/a:ref:refs/heads/x:ref:refs/heads/main",
                    "repo:orgs/app:ref:refs/heads/main",
                    "repo:org:app:ref:refs/heads/main",
                ],
            ),
            (
                "repo:org/app:ref:refs/heads/*",
                vec![main],
                vec!["repo:org/app:ref:refs/heads/a/b", "repo:org/app:ref:refs/heads/"],
            ),
            (
                "system:serviceaccount:*:default",
                vec!["system:serviceaccount:prod:default"],
                vec!["system:serviceaccount:prod:other", "system:serviceaccount::default"],
            ),
            ("12345", vec!["12345"], vec!["1234", "123456", "12345:"]),
            ("a:b:", vec!["a:b:"], vec!["a:b", "a:b::", "a:b:c"]),
        ] {
            let pattern: SubjectPattern = pattern.parse().unwrap();
            for subject in within {
                assert!(pattern.matches(subject), "{pattern} {subject:?}");
            }
            for subject in outside {
                assert!(!pattern.matches(subject), "{pattern} {subject:?}");
            }
        }
    }

    #[test]
    fn open_patterns_are_refused_with_a_hint() {
        let long = "a".repeat(TEXT_BYTES_MAX + 1);
        for (bad, hint) in [
            ("*", "first two parts"),
            ("repo:*", "first two parts"),
            ("repo:*/app:*", "first two parts"),
            ("*:org/app", "first two parts"),
            ("repo:org*/app", "first two parts"),
            ("**", "first two parts"),
            ("spiffe://*", "first two parts"),
            ("spiffe://*/x", "first two parts"),
            ("repo:org/app*", "whole part"),
            ("repo:org/**", "whole part"),
            ("repo:org/app:ref:refs/tags/v*", "whole part"),
            ("", "1 to 512"),
            (" repo:org/app", "blanks"),
            ("repo:org/app\n", "line ends"),
            ("repo:org/a\tb", "line ends"),
            (long.as_str(), "512"),
        ] {
            let error = bad.parse::<SubjectPattern>().unwrap_err().to_string();
            assert!(error.contains(hint), "{bad:?}: {error}");
        }
        assert!("spiffe://example.org/*".parse::<SubjectPattern>().is_ok());
        assert!("repo:org/app:environment:Our Site".parse::<SubjectPattern>().is_ok());
    }
}
