//! Patterns, in such an order that a name is compared with those alone that begin as it does.

use std::collections::HashMap;

use berth_shared::{
    name::RepositoryName,
    pattern::{Pattern, Tail},
};

/// The patterns, by the literal segments that they begin with.
#[derive(Debug, Default)]
pub(super) struct PatternSet(HashMap<String, Beginning>);

/// Patterns that begin with the same segments.
#[derive(Debug, Default)]
struct Beginning {
    /// Whether the repository of that name is within.
    itself: bool,
    /// Whether that and everything below it is.
    all: bool,
    /// Each of these has to be compared.
    others: Vec<Pattern>,
}

impl FromIterator<Pattern> for PatternSet {
    fn from_iter<P: IntoIterator<Item = Pattern>>(patterns: P) -> Self {
        let mut beginnings: HashMap<String, Beginning> = HashMap::new();
        for pattern in patterns {
            let (literal, tail) = pattern.split_literal();
            let beginning = beginnings.entry(literal.to_owned()).or_default();
            match tail {
                Tail::Nothing => beginning.itself = true,
                Tail::All => beginning.all = true,
                Tail::Some => beginning.others.push(pattern),
            }
        }
        Self(beginnings)
    }
}

impl PatternSet {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one of them holds the repository. How much was compared is added to `work`.
    pub(super) fn matches(&self, name: &RepositoryName, work: &mut usize) -> bool {
        *work += 1;
        let text = name.as_str();
        let ends = text.match_indices('/').map(|(end, _)| end);
        let beginnings = std::iter::once(0).chain(ends).chain([text.len()]);
        beginnings.filter_map(|end| Some((end, self.0.get(&text[..end])?))).any(|(end, found)| {
            let is_at_once = found.all || (found.itself && end == text.len());
            is_at_once
                || found.others.iter().any(|pattern| {
                    *work += cost(pattern, name);
                    pattern.matches(name)
                })
        })
    }

    /// Whether one of them holds every repository.
    pub(super) fn match_everything(&self) -> bool {
        let is_all =
            |found: &Beginning| found.all || found.others.iter().any(Pattern::matches_everything);
        self.0.get("").is_some_and(is_all)
    }
}

/// What it takes to compare both: one, unless both are long.
fn cost(pattern: &Pattern, name: &RepositoryName) -> usize {
    1 + pattern.as_str().len() * name.as_str().len() / 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work_on(patterns: impl Iterator<Item = String>, name: &str) -> (bool, usize) {
        let set: PatternSet = patterns.map(|pattern| pattern.parse().unwrap()).collect();
        let mut work = 0;
        (set.matches(&name.parse().unwrap(), &mut work), work)
    }

    #[test]
    fn a_name_is_compared_with_what_begins_as_it_does() {
        let many = |tail: &'static str| (0..1000).map(move |n| format!("team-{n}{tail}"));
        assert_eq!(work_on(many("/app"), "team-7/app"), (true, 1));
        assert_eq!(work_on(many("/**"), "team-7/a/b"), (true, 1));
        assert_eq!(work_on(many("/*"), "team-7/app"), (true, 2));
        assert_eq!(work_on(many("/*"), "team-7/a/b"), (false, 2));
        assert_eq!(work_on((0..1000).map(|n| format!("**/{n}")), "a/b"), (false, 1001));
        let long = "a/".repeat(127) + "a";
        assert_eq!(work_on(std::iter::once("*/".repeat(127) + "b"), &long).1, 65);
    }

    #[test]
    fn everything_is_found_however_it_is_written() {
        for (pattern, expected) in [("**", true), ("*/**", true), ("a/**", false), ("*", false)] {
            let set: PatternSet = [pattern.parse().unwrap()].into_iter().collect();
            assert_eq!(set.match_everything(), expected, "{pattern}");
        }
    }
}
