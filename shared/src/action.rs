//! What may be done to a repository: `pull`, `push`, `delete`.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::text::words;

words! {
    /// One thing that may be done to a repository.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
    #[serde(rename_all = "lowercase")]
    pub enum Action {
        /// Read blobs, manifests, tags and referrers.
        Pull = "pull",
        /// Upload blobs, put manifests, move tags. A grant of it implies `pull`.
        Push = "push",
        /// Delete blobs, manifests and tags.
        Delete = "delete",
    }
}

impl Action {
    /// Every action there is, in the order in which they are written out.
    pub const ALL: [Self; 3] = [Self::Pull, Self::Push, Self::Delete];

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// The word is no action.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown action {0:?}: the actions are pull, push, delete and * for all of them")]
pub struct UnknownAction(pub String);

impl FromStr for Action {
    type Err = UnknownAction;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|action| action.word() == text)
            .ok_or_else(|| UnknownAction(text.to_owned()))
    }
}

/// A set of actions. Compared as a set: clients write them in every order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "Vec<Action>", into = "Vec<Action>")]
pub struct Actions(u8);

impl Actions {
    /// No action.
    pub const NONE: Self = Self(0);
    /// Every action.
    pub const ALL: Self = Self(0b111);

    /// Whether nothing is in the set.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether `action` is in the set.
    pub fn contains(self, action: Action) -> bool {
        self.0 & action.bit() != 0
    }

    /// What is in either set.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is in both sets.
    #[must_use]
    pub fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// What is in this set and not in the other.
    #[must_use]
    pub fn difference(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// With `pull` added where `push` is: pushing without pulling is of no use to any client.
    #[must_use]
    pub fn with_implied(self) -> Self {
        if self.contains(Action::Push) { self.union(Action::Pull.into()) } else { self }
    }

    /// What words name of which some may be no actions: those count for nothing.
    pub fn of_words<'w>(words: impl IntoIterator<Item = &'w str>) -> Self {
        words.into_iter().filter_map(|word| word.parse().ok()).fold(Self::NONE, Self::union)
    }

    /// The actions in order.
    pub fn iter(self) -> impl Iterator<Item = Action> {
        Action::ALL.into_iter().filter(move |action| self.contains(*action))
    }
}

impl From<Action> for Actions {
    fn from(action: Action) -> Self {
        Self(action.bit())
    }
}

impl FromIterator<Action> for Actions {
    fn from_iter<I: IntoIterator<Item = Action>>(actions: I) -> Self {
        actions.into_iter().fold(Self::NONE, |set, action| set.union(action.into()))
    }
}

impl From<Vec<Action>> for Actions {
    fn from(actions: Vec<Action>) -> Self {
        actions.into_iter().collect()
    }
}

impl From<Actions> for Vec<Action> {
    fn from(actions: Actions) -> Self {
        actions.iter().collect()
    }
}

impl fmt::Display for Actions {
    /// Writes `pull,push`, in order.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.iter().map(Action::word).collect::<Vec<_>>().join(","))
    }
}

impl fmt::Debug for Actions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Actions({self})")
    }
}

impl FromStr for Actions {
    type Err = UnknownAction;

    /// Reads `pull,push`; `*` means all. An empty list is an unknown action.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.split(',').try_fold(Self::NONE, |set, word| {
            Ok(set.union(if word == "*" { Self::ALL } else { word.parse::<Action>()?.into() }))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_are_a_set_written_in_one_order() {
        let set: Actions = "push,pull".parse().unwrap();
        assert_eq!(set.to_string(), "pull,push");
        assert_eq!("*".parse::<Actions>().unwrap(), Actions::ALL);
        assert_eq!("push".parse::<Actions>().unwrap().with_implied(), set);
        for bad in ["", "pull,", "Pull", "read", "pull, push"] {
            assert!(bad.parse::<Actions>().is_err(), "{bad:?}");
        }
    }
}
