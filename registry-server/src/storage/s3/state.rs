//! What an S3 store has to remember of an unfinished object, as its session's row keeps it.

use serde::{Deserialize, Serialize};

use super::Checksum;
use crate::storage::{Draft, Error, Location};

/// An unfinished object: equal parts of a multipart upload, and behind them objects of their own.
///
/// S3 takes no part below 5 MiB but the last, so the rest of a request is such an object, a *tail*, until
/// there is enough for a part. A blob that is smaller than a part is its only tail.
///
/// Nothing is put that is not named here before, so that all that lies there can be deleted by the row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    /// The length of each part but the last, in bytes: the same until the end.
    pub(super) part_bytes: u64,
    /// Which sum its parts were sent with, which is said again when they are put together.
    #[serde(default)]
    pub(super) checksum: Checksum,
    /// The multipart upload, when there is one, and where its object is to lie.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) upload: Option<Upload>,
    /// What the store gave for each part, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) parts: Vec<String>,
    /// What lies behind the parts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) tails: Vec<Tail>,
    /// Where tails lie whose bytes are elsewhere by now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) spent: Vec<String>,
    /// Where whoever works on it may put one object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) next: Option<String>,
    /// Where somebody may have put one, or may yet, who did not come to record it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) lost: Vec<String>,
    /// Whether the store may have been told to make the object, so that it can only be finished.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) is_sealed: bool,
}

/// A multipart upload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Upload {
    /// How the store calls it.
    pub(super) id: String,
    /// Where its object is to lie.
    pub(super) at: String,
}

/// An object that holds a piece of an unfinished one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Tail {
    pub(super) at: String,
    pub(super) bytes: u64,
}

impl State {
    /// Of an object that holds nothing.
    pub(super) fn new(part_bytes: u64, checksum: Checksum) -> Self {
        Self {
            part_bytes,
            checksum,
            upload: None,
            parts: Vec::new(),
            tails: Vec::new(),
            spent: Vec::new(),
            next: None,
            lost: Vec::new(),
            is_sealed: false,
        }
    }

    /// What the draft says; [`Error::NotFound`] where it does not say what it has to, or what the settings
    /// leave no room for any more.
    pub(super) fn of(draft: &Draft, part_bytes: u64, checksum: Checksum) -> Result<Self, Error> {
        let state = match &draft.state {
            Some(text) => Self::read(text),
            None => Some(Self::new(part_bytes, checksum)),
        };
        let state = state.filter(|it| {
            let is_whole = it.is_sealed || it.bytes() == draft.received;
            is_whole && it.part_bytes <= part_bytes && it.checksum == checksum
        });
        state.ok_or_else(|| Error::NotFound(draft.location.clone()))
    }

    /// What a row says, whatever that counts.
    pub(super) fn read(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// In the row's words.
    pub(super) fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// How many bytes parts and tails hold.
    pub(super) fn bytes(&self) -> u64 {
        (self.parts.len() as u64).saturating_mul(self.part_bytes).saturating_add(self.tail_bytes())
    }

    pub(super) fn tail_bytes(&self) -> u64 {
        self.tails.iter().fold(0, |sum, tail| sum.saturating_add(tail.bytes))
    }

    /// Where anything of it may lie.
    pub(super) fn locations(&self) -> impl Iterator<Item = Location> {
        let tails = self.tails.iter().map(|tail| &tail.at);
        let others = self.spent.iter().chain(&self.next).chain(&self.lost);
        let object = self.upload.iter().map(|upload| &upload.at);
        tails.chain(others).chain(object).filter_map(|at| at.parse().ok())
    }

    /// What is left of it when the object at `location` is what it was for.
    pub(super) fn without(mut self, location: &Location) -> Option<Self> {
        let is_other = |at: &str| at != location.as_str();
        self.tails.retain(|tail| is_other(&tail.at));
        self.next = self.next.filter(|at| is_other(at));
        (self.parts, self.upload, self.is_sealed) = (Vec::new(), None, false);
        let is_something = self.locations().next().is_some();
        is_something.then_some(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(number: u8) -> String {
        format!("{number:032x}")
    }

    fn full() -> State {
        State {
            upload: Some(Upload { id: "id".to_owned(), at: at(1) }),
            parts: vec!["one".to_owned()],
            tails: vec![Tail { at: at(2), bytes: 3 }],
            spent: vec![at(4)],
            next: Some(at(5)),
            lost: vec![at(6)],
            ..State::new(10, Checksum::None)
        }
    }

    #[test]
    fn a_draft_that_says_something_else_is_none() {
        let location = Location::fresh().unwrap();
        let draft = |received, state: &str| Draft {
            location: location.clone(),
            received,
            state: Some(state.to_owned()),
        };
        assert_eq!(State::of(&draft(13, &full().text()), 99, Checksum::None).unwrap(), full());
        assert!(State::of(&draft(14, &full().text()), 99, Checksum::None).is_err());
        assert!(State::of(&draft(0, "of another store"), 99, Checksum::None).is_err());
        assert!(State::of(&Draft::of(location.clone(), 5), 99, Checksum::None).is_err());
        assert_eq!(
            State::of(&Draft::of(location.clone(), 0), 99, Checksum::None).unwrap(),
            State::new(99, Checksum::None)
        );
        let now = draft(13, &full().text());
        assert!(State::of(&now, 9, Checksum::None).is_err(), "its parts are longer");
        assert!(State::of(&now, 99, Checksum::Sha256).is_err(), "its parts have no such sum");
        let sealed = State { is_sealed: true, ..full() };
        assert_eq!(State::of(&draft(17, &sealed.text()), 99, Checksum::None).unwrap(), sealed);
    }

    #[test]
    fn all_that_may_lie_there_is_named_and_what_lasts_is_not_left() {
        let named = |state: &State| -> Vec<String> {
            state.locations().map(|it| it.as_str().to_owned()).collect()
        };
        assert_eq!(named(&full()), [at(2), at(4), at(5), at(6), at(1)]);
        let left = |number| full().without(&at(number).parse().unwrap()).unwrap();
        assert_eq!(named(&left(1)), [at(2), at(4), at(5), at(6)]);
        assert_eq!(named(&left(5)), [at(2), at(4), at(6)]);
        let only =
            State { tails: vec![Tail { at: at(2), bytes: 3 }], ..State::new(10, Checksum::None) };
        assert_eq!(only.without(&at(2).parse().unwrap()), None);
    }
}
