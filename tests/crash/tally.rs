//! What was done and checked, counted, and the lines that say so.

use std::{collections::BTreeMap, fmt};

/// Something that must not happen did.
#[derive(Debug)]
pub(crate) struct Violation(String);

impl Violation {
    /// In the words that the report shows.
    pub(crate) fn new(words: impl Into<String>) -> Self {
        Self(words.into())
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A kind of thing that is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fact {
    /// A manifest was acknowledged.
    Pushed,
    /// An acknowledged image was pulled whole after a restart.
    Pulled,
    /// A push without an answer turned out to be there, whole.
    Whole,
    /// A push without an answer turned out to be absent.
    Absent,
    /// A tag resolved after a restart.
    Resolved,
    /// A deleted manifest was still gone after a restart.
    StillGone,
    /// A session stood after a restart where it was acknowledged, or further.
    Stood,
    /// A request of a session broke off, and the session went on.
    WentOn,
    /// A commit broke off, and had been done.
    HadCommitted,
    /// A session was finished after the last restart.
    Finished,
    /// A session was cancelled after the last restart.
    Cancelled,
    /// A token from before the kill was still taken.
    TokenHeld,
    /// A client did what it wanted while `auth-server` was down.
    AnsweredAlone,
    /// `authctl` ended with 0.
    Administered,
    /// `authctl` was killed.
    AdministrationKilled,
    /// A user signed in after a restart with the rights and the password that were acknowledged.
    SignedIn,
}

/// How often each thing happened.
#[derive(Debug, Default)]
pub(crate) struct Tally(BTreeMap<Fact, u64>);

impl Tally {
    /// It happened once more.
    pub(crate) fn count(&mut self, fact: Fact) {
        *self.0.entry(fact).or_default() += 1;
    }

    /// Adds what another has counted.
    pub(crate) fn add(&mut self, other: Self) {
        for (fact, times) in other.0 {
            *self.0.entry(fact).or_default() += times;
        }
    }

    fn of(&self, fact: Fact) -> u64 {
        self.0.get(&fact).copied().unwrap_or_default()
    }

    /// Whether a kill came in the middle of something, so that the checks mean anything.
    pub(crate) fn has_interruptions(&self) -> bool {
        [Fact::WentOn, Fact::AdministrationKilled].iter().any(|fact| self.of(*fact) > 0)
    }

    /// A line for each group of checks of the pushing clients.
    pub(crate) fn pushing(&self) -> Vec<String> {
        let of = |fact| self.of(fact);
        vec![
            format!(
                "{} pushes were acknowledged; what was not deleted was pulled whole after every restart, {} pulls in all",
                of(Fact::Pushed),
                of(Fact::Pulled)
            ),
            format!("{} times a tag led where it was acknowledged to", of(Fact::Resolved)),
            format!("{} times a manifest that was gone had stayed so", of(Fact::StillGone)),
            format!(
                "{} times an open upload session had kept what was acknowledged",
                of(Fact::Stood)
            ),
            format!(
                "no session was stuck: at the end {} were finished and {} cancelled",
                of(Fact::Finished),
                of(Fact::Cancelled)
            ),
            format!("{} times a token from before the kill was taken", of(Fact::TokenHeld)),
        ]
    }

    /// A line for each group of checks of requests that broke off.
    pub(crate) fn interrupted(&self) -> Vec<String> {
        let of = |fact| self.of(fact);
        vec![
            format!(
                "{} pushes and deletes without an answer: {} images there and whole, {} absent, none half",
                of(Fact::Whole) + of(Fact::Absent),
                of(Fact::Whole),
                of(Fact::Absent)
            ),
            format!(
                "{} interrupted upload sessions went on where they stood, {} had been committed",
                of(Fact::WentOn),
                of(Fact::HadCommitted)
            ),
        ]
    }

    /// A line for each group of checks of what `authctl` does.
    pub(crate) fn administration(&self) -> Vec<String> {
        let of = |fact| self.of(fact);
        vec![format!(
            "{} changes by authctl ended with 0, {} were killed in the middle; {} sign-ins gave the rights that were acknowledged",
            of(Fact::Administered),
            of(Fact::AdministrationKilled),
            of(Fact::SignedIn)
        )]
    }

    /// What went on while `auth-server` was down.
    pub(crate) fn alone(&self) -> String {
        format!(
            "{} times a client pushed, pulled or deleted while auth-server was down",
            self.of(Fact::AnsweredAlone)
        )
    }
}
