//! Repository patterns of grants: anchored, `*` for one name segment, `**` for any depth.

use crate::{
    name::{NAME_BYTES_MAX, RepositoryName, is_segment},
    subject::UserName,
    text::text_value,
};

/// Stands for the name of the user who asks.
const USER: &str = "${user}";

text_value! {
    /// A pattern such as `team/app`, `team/*` or `team/**`.
    ///
    /// Each segment is a literal name segment, `*` (exactly one segment), `**` (any number of them,
    /// none included, so that `team/**` holds `team` and all below it), or `${user}`: the name of
    /// the user who asks. No repository is within a pattern as long as a `${user}` stands in it:
    /// [`for_user`](Self::for_user) replaces it.
    pub struct Pattern: InvalidPattern, check
}

/// What a pattern holds beyond the literal segments that it begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tail {
    /// Those are all of it: one repository.
    Nothing,
    /// The repository of that name, if there are such segments, and everything below it.
    All,
    /// Some of what is below it.
    Some,
}

/// The text is not a pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPattern {
    /// A host was written in front.
    #[error("{0:?} names a host: write the repository alone, as in team/app")]
    Host(String),
    /// Upper case, which no repository name has.
    #[error("{0:?} holds upper-case letters: repository names are lower case")]
    UpperCase(String),
    /// Anything else outside the grammar.
    #[error(
        "{0:?} is no repository pattern: name segments joined by /, with * for one segment, ** for any depth and ${{user}} for the user's own name"
    )]
    Grammar(String),
}

impl Pattern {
    /// The pattern that every repository is within.
    pub fn everything() -> Self {
        Self("**".to_owned())
    }

    /// The pattern with the name of `user` where `${user}` stands. `None` when one stands there
    /// and the name is no segment of a repository's name: it must not reach out of its place.
    pub fn for_user(&self, user: Option<&UserName>) -> Option<Self> {
        if !self.0.split('/').any(|segment| segment == USER) {
            return Some(self.clone());
        }
        let name = user.map(UserName::as_str).filter(|name| is_segment(name))?;
        let segments =
            self.0.split('/').map(|segment| if segment == USER { name } else { segment });
        Some(Self(segments.collect::<Vec<_>>().join("/")))
    }

    /// The literal segments that the pattern begins with, and what it holds beyond them. A `${user}`
    /// is literal, as for [`matches`](Self::matches).
    #[must_use]
    pub fn split_literal(&self) -> (&str, Tail) {
        let mut end = 0;
        for segment in self.0.split_inclusive('/') {
            if segment.starts_with('*') {
                let (literal, rest) = self.0.split_at(end);
                let is_all = rest.split('/').all(|segment| segment == "**");
                let tail = if is_all { Tail::All } else { Tail::Some };
                return (literal.trim_end_matches('/'), tail);
            }
            end += segment.len();
        }
        (&self.0, Tail::Nothing)
    }

    /// Whether `name` is within the pattern.
    pub fn matches(&self, name: &RepositoryName) -> bool {
        if !self.0.contains('*') {
            return self.0 == name.as_str();
        }
        let (last, last_of_name) = (last_segment(&self.0), last_segment(name.as_str()));
        if !last.starts_with('*') && last != last_of_name {
            return false;
        }
        let pattern: Vec<&str> = self.0.split('/').collect();
        let name: Vec<&str> = name.as_str().split('/').collect();
        segments_match(&pattern, &name)
    }

    /// Whether every repository is within the pattern.
    pub fn matches_everything(&self) -> bool {
        let count = |wanted| self.0.split('/').filter(|segment| *segment == wanted).count();
        let (single, any) = (count("*"), count("**"));
        // Every name has a first segment, so that one `*` beside a `**` leaves nothing out.
        any > 0 && single <= 1 && self.0.split('/').count() == single + any
    }
}

fn last_segment(text: &str) -> &str {
    text.rsplit_once('/').map_or(text, |(_, last)| last)
}

/// Matches by the rows of a table, so that the time is pattern length × name length however many
/// `**` there are.
fn segments_match(pattern: &[&str], name: &[&str]) -> bool {
    // reached[i]: the pattern read so far can end just before name segment i.
    let mut reached = vec![false; name.len() + 1];
    reached[0] = true;
    for segment in pattern {
        if *segment == "**" {
            let from = reached.iter().position(|end| *end).unwrap_or(reached.len());
            reached[from..].fill(true);
        } else {
            for i in (0..name.len()).rev() {
                reached[i + 1] = reached[i] && (*segment == "*" || *segment == name[i]);
            }
            reached[0] = false;
        }
    }
    reached[name.len()]
}

fn check(text: &str) -> Result<(), InvalidPattern> {
    let first = text.split('/').next().unwrap_or_default();
    if first.contains(':') || (text.contains('/') && first == "localhost") {
        return Err(InvalidPattern::Host(text.to_owned()));
    }
    if text.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err(InvalidPattern::UpperCase(text.to_owned()));
    }
    let fits = |segment: &str| ["*", "**", USER].contains(&segment) || is_segment(segment);
    let is_pattern = text.len() <= NAME_BYTES_MAX && text.split('/').all(fits);
    is_pattern.then_some(()).ok_or_else(|| InvalidPattern::Grammar(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition of a match, for patterns short enough for it.
    fn matches_by_definition(pattern: &[&str], name: &[&str]) -> bool {
        match (pattern, name) {
            ([], []) => true,
            (["**", rest @ ..], _) => {
                (0..=name.len()).any(|skip| matches_by_definition(rest, &name[skip..]))
            }
            ([segment, rest @ ..], [first, name @ ..]) => {
                (*segment == "*" || segment == first) && matches_by_definition(rest, name)
            }
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn a_pattern_is_written_as_it_was_read_and_matches_by_its_definition(
            text in "(a|b|\\*|\\*\\*)(/(a|b|\\*|\\*\\*)){0,5}", name in "[ab](/[ab]){0,5}",
        ) {
            let pattern: Pattern = text.parse().unwrap();
            prop_assert_eq!(pattern.as_str(), &text);
            let segments = |text| str::split(text, '/').collect::<Vec<_>>();
            let expected = matches_by_definition(&segments(&text), &segments(&name));
            prop_assert_eq!(pattern.matches(&name.parse().unwrap()), expected);
        }
    }

    #[test]
    fn patterns_are_anchored_and_stars_count_segments() {
        for (pattern, name, expected) in [
            ("team/app", "team/app", true),
            ("team/app", "team/app/x", false),
            ("team/app", "other/team/app", false),
            ("*", "a", true),
            ("*", "a/b", false),
            ("team/*", "team/app", true),
            ("team/*", "team", false),
            ("team/*", "team/a/b", false),
            ("team/**", "team", true),
            ("team/**", "team/a/b/c", true),
            ("team/**", "teams/a", false),
            ("**", "a/b/c", true),
            ("**/app", "app", true),
            ("**/app", "a/b/app", true),
            ("**/app", "a/b/app/c", false),
            ("a/**/z", "a/z", true),
            ("a/**/z", "a/b/c/z", true),
            ("a/*/**/z", "a/z", false),
            ("a/**/m/**/z", "a/b/m/c/z", true),
        ] {
            let pattern_value: Pattern = pattern.parse().unwrap();
            let name_value: RepositoryName = name.parse().unwrap();
            assert_eq!(pattern_value.matches(&name_value), expected, "{pattern} ~ {name}");
        }
    }

    #[test]
    fn the_users_own_name_is_one_segment_or_nothing() {
        let own: Pattern = "home/${user}/**".parse().unwrap();
        for (user, replaced) in [
            ("andrew", Some("home/andrew/**")),
            ("a.b-c_d", Some("home/a.b-c_d/**")),
            ("Andrew", None),
            ("a@b", None),
            ("a.-b", None),
        ] {
            let user: UserName = user.parse().unwrap();
            let pattern = own.for_user(Some(&user));
            assert_eq!(pattern.as_ref().map(Pattern::as_str), replaced, "{user}");
        }
        assert_eq!(own.for_user(None), None);
        assert!(!own.matches(&"home/andrew".parse().unwrap()));
        let plain: Pattern = "team/*".parse().unwrap();
        assert_eq!(plain.for_user(None), Some(plain.clone()));
    }

    #[test]
    fn a_pattern_begins_with_literal_segments() {
        for (pattern, literal, tail) in [
            ("team", "team", Tail::Nothing),
            ("team/app", "team/app", Tail::Nothing),
            ("home/${user}", "home/${user}", Tail::Nothing),
            ("team/**", "team", Tail::All),
            ("team/app/**/**", "team/app", Tail::All),
            ("**", "", Tail::All),
            ("*", "", Tail::Some),
            ("**/app", "", Tail::Some),
            ("team/*", "team", Tail::Some),
            ("team/**/*", "team", Tail::Some),
            ("team/*/app", "team", Tail::Some),
        ] {
            let pattern: Pattern = pattern.parse().unwrap();
            assert_eq!(pattern.split_literal(), (literal, tail), "{pattern}");
        }
    }

    #[test]
    fn everything_can_be_written_in_several_ways() {
        for everything in ["**", "**/**", "**/*", "*/**", "**/*/**"] {
            assert!(everything.parse::<Pattern>().unwrap().matches_everything(), "{everything}");
        }
        for less in ["*", "*/*", "*/**/*", "**/a", "a/**"] {
            assert!(!less.parse::<Pattern>().unwrap().matches_everything(), "{less}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused_with_its_reason() {
        assert!(matches!("host:5000/a".parse::<Pattern>(), Err(InvalidPattern::Host(_))));
        assert!(matches!("Team/app".parse::<Pattern>(), Err(InvalidPattern::UpperCase(_))));
        for bad in ["", "/", "a/", "a*", "***", "a/../b", "a b", "[a]", "${group}/x", "a${user}"] {
            assert!(matches!(bad.parse::<Pattern>(), Err(InvalidPattern::Grammar(_))), "{bad}");
        }
    }
}
