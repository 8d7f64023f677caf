//! What a subject may pull, said in such a way that the database can be asked by it: as spans of
//! names in byte order. What a subject may see, and not what there is, then decides what a list or a
//! mount costs.

mod pattern_set;

use std::collections::BTreeSet;

use berth_shared::{
    action::Action,
    clock::UnixSeconds,
    name::RepositoryName,
    pattern::{Pattern, Tail},
    rights::{Effect, Rights},
};

use pattern_set::PatternSet;

/// Comes before everything that may follow in a name, the end of the name excepted.
const BEFORE_ALL: char = '!';

/// Comes behind every name.
const BEHIND_ALL: &str = "~";

/// The names from one that is within to another that is not.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span {
    pub(crate) from: String,
    pub(crate) to: String,
}

/// The repositories that a subject may pull.
#[derive(Debug, Default)]
pub(crate) struct Reach {
    allows: PatternSet,
    denies: PatternSet,
    /// Whatever the patterns say.
    named: BTreeSet<RepositoryName>,
    /// All names that are within are in one of these; not all that are in these are within.
    spans: Vec<Span>,
}

impl Reach {
    /// What whoever holds `rights` may pull at `now`.
    pub(crate) fn of(rights: &Rights, now: UnixSeconds) -> Self {
        let patterns = |effect| -> Vec<Pattern> {
            let decides = rights.rules.iter().filter(|rule| {
                rule.effect == effect && rule.holds_at(now) && rule.decides().contains(Action::Pull)
            });
            decides.map(|rule| rule.pattern.clone()).collect()
        };
        let (allows, denies) = (patterns(Effect::Allow), patterns(Effect::Deny));
        let may_be = merged(allows.iter().flat_map(spans_of).collect());
        // What is denied in part is looked at name by name.
        let whole = denies.iter().filter(|pattern| pattern.split_literal().1 != Tail::Some);
        let spans = without(may_be, &merged(whole.flat_map(spans_of).collect()));
        let (allows, denies) = (allows.into_iter().collect(), denies.into_iter().collect());
        Self { allows, denies, named: BTreeSet::new(), spans }
    }

    /// The same, and these repositories, whatever denies them; they come first.
    pub(crate) fn with(mut self, names: impl Iterator<Item = RepositoryName>) -> Self {
        self.named = names.collect();
        let named = self.named.iter().map(|name| only(name.as_str()));
        self.spans = named.chain(std::mem::take(&mut self.spans)).collect();
        self
    }

    /// Whether it holds the repository. How much was compared for that is added to `work`.
    pub(crate) fn holds(&self, name: &RepositoryName, work: &mut usize) -> bool {
        self.named.contains(name)
            || (self.allows.matches(name, work) && !self.denies.matches(name, work))
    }

    /// Whether it holds every repository.
    pub(crate) fn is_everything(&self) -> bool {
        self.denies.is_empty() && self.allows.match_everything()
    }

    /// Where its names are.
    pub(crate) fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// Where those of its names are that come behind `last`.
    pub(crate) fn spans_behind(&self, last: &str) -> Vec<Span> {
        if last.is_empty() {
            return self.spans.clone();
        }
        let least = format!("{last}{BEFORE_ALL}");
        let behind = self.spans.iter().filter(|span| span.to > least).cloned();
        behind.map(|Span { from, to }| Span { from: from.max(least.clone()), to }).collect()
    }
}

fn only(name: &str) -> Span {
    Span { from: name.to_owned(), to: format!("{name}{BEFORE_ALL}") }
}

/// Where the names are that may be within the pattern.
fn spans_of(pattern: &Pattern) -> Vec<Span> {
    let everything = || Span { from: String::new(), to: BEHIND_ALL.to_owned() };
    // '0' is the next character after '/'.
    let below = |name: &str| Span { from: format!("{name}/"), to: format!("{name}0") };
    match pattern.split_literal() {
        (name, Tail::Nothing) => vec![only(name)],
        ("", _) => vec![everything()],
        (name, Tail::Some) => vec![below(name)],
        (name, Tail::All) => vec![only(name), below(name)],
    }
}

/// The same names, in order and without overlaps.
fn merged(mut spans: Vec<Span>) -> Vec<Span> {
    spans.sort();
    let mut merged: Vec<Span> = Vec::with_capacity(spans.len());
    for span in spans {
        match merged.last_mut() {
            Some(last) if span.from <= last.to => {
                if last.to < span.to {
                    last.to = span.to;
                }
            }
            _ => merged.push(span),
        }
    }
    merged
}

/// What `spans` have and `gaps` have not; both in order and without overlaps.
fn without(spans: Vec<Span>, gaps: &[Span]) -> Vec<Span> {
    let mut left = Vec::new();
    for Span { mut from, to } in spans {
        let first = gaps.partition_point(|gap| gap.to <= from);
        for gap in gaps[first..].iter().take_while(|gap| gap.from < to) {
            if gap.from > from {
                left.push(Span { from, to: gap.from.clone() });
            }
            from = gap.to.clone();
        }
        if from < to {
            left.push(Span { from, to });
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use berth_shared::{rights::Rule, subject::Grantee};
    use proptest::prelude::*;

    use super::*;

    fn moment(seconds: i64) -> UnixSeconds {
        UnixSeconds::new(seconds)
    }

    fn rights(rules: &[(&str, &str, &str)]) -> Rights {
        let rule = |(effect, pattern, actions): &(&str, &str, &str)| Rule {
            grantee: Grantee::Everyone,
            pattern: pattern.parse().unwrap(),
            effect: effect.parse().unwrap(),
            actions: actions.parse().unwrap(),
            expires: None,
        };
        Rights { rules: rules.iter().map(rule).collect() }
    }

    fn spans(rules: &[(&str, &str, &str)]) -> Vec<(String, String)> {
        let reach = Reach::of(&rights(rules), moment(0));
        reach.spans.into_iter().map(|span| (span.from, span.to)).collect()
    }

    fn pair(from: &str, to: &str) -> (String, String) {
        (from.to_owned(), to.to_owned())
    }

    #[test]
    fn spans_are_where_names_may_be_that_are_allowed() {
        assert_eq!(spans(&[]), []);
        assert_eq!(spans(&[("allow", "a", "delete")]), []);
        assert_eq!(spans(&[("allow", "a/b", "push")]), [pair("a/b", "a/b!")]);
        assert_eq!(spans(&[("allow", "a/**", "pull")]), [pair("a", "a!"), pair("a/", "a0")]);
        assert_eq!(spans(&[("allow", "a/*/c", "pull")]), [pair("a/", "a0")]);
        let both = [("allow", "**/a", "pull"), ("allow", "b", "pull")];
        assert_eq!(spans(&both), [pair("", "~")]);
        let less = [("allow", "**", "*"), ("deny", "b/**", "*"), ("deny", "c/*", "*")];
        assert_eq!(spans(&less), [pair("", "b"), pair("b!", "b/"), pair("b0", "~")]);
        assert_eq!(spans(&[("allow", "a/b", "pull"), ("deny", "**", "pull")]), []);
        let others = [("allow", "b/**", "pull"), ("deny", "a", "*"), ("deny", "b/c", "*")];
        let left = [pair("b", "b!"), pair("b/", "b/c"), pair("b/c!", "b0")];
        assert_eq!(spans(&others), left);
    }

    #[test]
    fn what_is_named_comes_first_and_whatever_denies_it() {
        let rules = [("allow", "a/**", "pull"), ("deny", "z", "pull")];
        let z: RepositoryName = "z".parse().unwrap();
        let reach = Reach::of(&rights(&rules), moment(0)).with([z.clone()].into_iter());
        assert!(reach.holds(&z, &mut 0) && !reach.is_everything());
        assert_eq!(reach.spans[0], only("z"));
        assert!(Reach::of(&Rights::everything(), moment(0)).is_everything());
    }

    proptest! {
        #[test]
        fn a_reach_holds_what_the_rules_allow_and_its_spans_lead_there(
            rules in prop::collection::vec(
                ("(a|b|\\*|\\*\\*)(/(a|b-c|\\*|\\*\\*)){0,2}", "pull|push|delete|\\*", any::<bool>()), 0..6),
            name in "(a|b|b-c|b0)(/(a|b|b-c|b\\.c)){0,3}",
            last in "(a|b|b-c|b0)(/(a|b|b-c|b\\.c)){0,3}|",
        ) {
            let rules: Vec<(&str, &str, &str)> = rules
                .iter()
                .map(|(pattern, actions, denies)| {
                    let effect = if *denies { "deny" } else { "allow" };
                    (effect, pattern.as_str(), actions.as_str())
                })
                .collect();
            let rights = rights(&rules);
            let reach = Reach::of(&rights, moment(0));
            let name: RepositoryName = name.parse().unwrap();
            let may = rights.actions_on(&name, moment(0)).contains(Action::Pull);
            prop_assert_eq!(reach.holds(&name, &mut 0), may);
            let leads = |spans: &[Span]| {
                let is_in = |span: &&Span| {
                    (span.from.as_str()..span.to.as_str()).contains(&name.as_str())
                };
                spans.iter().filter(is_in).count()
            };
            prop_assert!(leads(reach.spans()) <= 1);
            prop_assert!(leads(reach.spans()) == 1 || !may);
            let behind = if name.as_str() > last.as_str() { leads(reach.spans()) } else { 0 };
            prop_assert_eq!(leads(&reach.spans_behind(&last)), behind);
            prop_assert!(reach.is_everything() <= may);
        }
    }
}
