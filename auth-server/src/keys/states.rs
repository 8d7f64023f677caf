//! Which key signs, which will, and which did: the one small file that says so, and its rules.
//!
//! The rules are pure. A `next` key is published before it ever signs, a `retired` one stays
//! published until nothing that it signed can be in use any more, and a key that the file does not
//! name is neither.

use std::cmp::Reverse;

use berth_shared::{
    claims::{LEEWAY_SECS, SESSION_GRANT_SECS_MAX},
    clock::UnixSeconds,
    text::words,
};
use serde::{Deserialize, Serialize};

use super::{NEXT_AGE_SECS_MIN, file::KeyFile, settings::KeyAlgorithm};
use crate::issue::TOKEN_LIFE_SECS_MAX;

/// The form of the file that this version writes and reads.
const FORMAT: u32 = 1;

/// The life that tokens are taken to have had before there were states: the longest that any
/// setting allows.
const TOKEN_LIFE_SECS_UNKNOWN: u32 = TOKEN_LIFE_SECS_MAX;

words! {
    /// What a key is good for.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
    #[serde(rename_all = "lowercase")]
    pub enum KeyState {
        /// It signs.
        Active = "active",
        /// It is published, and signs once it is rotated to.
        Next = "next",
        /// It signed; it is published until its last token is out of use.
        Retired = "retired",
    }
}

/// One key and its state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    pub(super) file: KeyFile,
    pub(super) state: KeyState,
    pub(super) since: UnixSeconds,
    /// The longest life of the tokens that it has signed, in seconds.
    #[serde(default)]
    pub(super) token_life_secs: u32,
    /// When a retired key goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) until: Option<UnixSeconds>,
}

/// All keys with their states: at most one active, at most one next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct States {
    format: u32,
    pub(super) keys: Vec<Entry>,
}

impl States {
    /// Reads the file's text.
    pub(super) fn parse(text: &[u8]) -> Result<Self, String> {
        let states: Self = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        if states.format != FORMAT {
            return Err(format!("it has form {}: use a newer Berth", states.format));
        }
        let twice = |state: KeyState| format!("it names more than one {} key", state.word());
        Self::of_entries(states.keys).map_err(twice)
    }

    /// Those of these keys; or a state that one alone may be in, and several are.
    pub(super) fn of_entries(keys: Vec<Entry>) -> Result<Self, KeyState> {
        for state in [KeyState::Active, KeyState::Next] {
            if keys.iter().filter(|key| key.state == state).count() > 1 {
                return Err(state);
            }
        }
        Ok(Self { format: FORMAT, keys })
    }

    pub(super) fn to_text(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).unwrap_or_default()
    }

    /// For a directory that an older Berth has left: the newest key of the configured algorithm
    /// signed last, and where there is none, the newest of the other.
    pub(super) fn taken_over(
        mut files: Vec<KeyFile>,
        algorithm: KeyAlgorithm,
        now: UnixSeconds,
    ) -> Self {
        files.sort_by_key(|file| {
            (file.algorithm != algorithm, Reverse(file.made), file.to_string())
        });
        let mut keys: Vec<_> = files.into_iter().map(|file| Entry::new(file, now)).collect();
        for (index, key) in keys.iter_mut().enumerate() {
            key.token_life_secs = TOKEN_LIFE_SECS_UNKNOWN;
            if index == 0 {
                key.state = KeyState::Active;
            } else {
                key.retire(now);
            }
        }
        Self { format: FORMAT, keys }
    }

    pub(super) fn of(&self, state: KeyState) -> Option<&Entry> {
        self.keys.iter().find(|key| key.state == state)
    }

    fn of_mut(&mut self, state: KeyState) -> Option<&mut Entry> {
        self.keys.iter_mut().find(|key| key.state == state)
    }

    pub(super) fn names(&self, file: &KeyFile) -> bool {
        self.keys.iter().any(|key| key.file == *file)
    }

    /// Leaves out what is not `there` any more.
    pub(super) fn keep_there(&mut self, there: &[KeyFile]) {
        self.keys.retain(|key| there.contains(&key.file));
    }

    /// Leaves out retired keys whose time is over.
    pub(super) fn forget(&mut self, now: UnixSeconds) {
        self.keys.retain(|key| !key.is_over(now));
    }

    /// Notes how long the tokens may hold that the active key signs.
    pub(super) fn note_token_life(&mut self, secs: u32) {
        if let Some(active) = self.of_mut(KeyState::Active) {
            active.token_life_secs = active.token_life_secs.max(secs);
        }
    }

    /// Leaves the next key out if new keys are to be of another algorithm: it has signed nothing.
    pub(super) fn drop_next_unless(&mut self, algorithm: KeyAlgorithm) {
        self.keys.retain(|key| key.state != KeyState::Next || key.file.algorithm == algorithm);
    }

    pub(super) fn add_next(&mut self, file: KeyFile, now: UnixSeconds) {
        self.keys.push(Entry::new(file, now));
    }

    /// Whether the next key is of another algorithm than the one that signs, and long enough
    /// published to take its place: the setting was changed.
    pub(super) fn is_change_due(&self, algorithm: KeyAlgorithm, now: UnixSeconds) -> bool {
        let is_of = |key: &Entry| key.file.algorithm == algorithm;
        self.of(KeyState::Active).is_some_and(|key| !is_of(key))
            && self.of(KeyState::Next).is_some_and(|key| is_of(key) && key.signs_from() <= now)
    }

    /// Whether time alone has made something due: a retired key is over, or a change of algorithm
    /// can take effect.
    pub(super) fn is_due(&self, algorithm: KeyAlgorithm, now: UnixSeconds) -> bool {
        self.is_change_due(algorithm, now) || self.keys.iter().any(|key| key.is_over(now))
    }

    /// The active key retires and the next one becomes active.
    pub(super) fn rotate(&mut self, now: UnixSeconds) {
        if let Some(active) = self.of_mut(KeyState::Active) {
            active.retire(now);
        }
        if let Some(next) = self.of_mut(KeyState::Next) {
            (next.state, next.since) = (KeyState::Active, now);
        }
    }
}

impl Entry {
    fn new(file: KeyFile, now: UnixSeconds) -> Self {
        Self { file, state: KeyState::Next, since: now, token_life_secs: 0, until: None }
    }

    fn retire(&mut self, now: UnixSeconds) {
        // A token holds for its life and the leeway; whoever uploads may then go on for a day.
        let secs = i64::from(self.token_life_secs) + SESSION_GRANT_SECS_MAX + 2 * LEEWAY_SECS;
        (self.state, self.since, self.until) = (KeyState::Retired, now, Some(now + secs));
    }

    pub(super) fn is_over(&self, now: UnixSeconds) -> bool {
        self.until.is_some_and(|until| until <= now)
    }

    /// From when on every registry knows a next key.
    pub(super) fn signs_from(&self) -> UnixSeconds {
        self.since + NEXT_AGE_SECS_MIN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(seconds: i64) -> UnixSeconds {
        UnixSeconds::new(seconds)
    }

    fn files(names: &[&str]) -> Vec<KeyFile> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    fn shown(states: &States) -> Vec<String> {
        let show = |key: &Entry| format!("{} {} {}", key.file, key.state.word(), key.since.get());
        states.keys.iter().map(show).collect()
    }

    #[test]
    fn a_directory_without_states_is_taken_over() {
        let files = files(&["es256-5.pem", "eddsa-9.pem", "es256-7.pem"]);
        let states = States::taken_over(files.clone(), KeyAlgorithm::Es256, moment(100));
        let expected =
            ["es256-7.pem active 100", "es256-5.pem retired 100", "eddsa-9.pem retired 100"];
        assert_eq!(shown(&states), expected);
        let until = states.keys[1].until.unwrap();
        assert_eq!(until, moment(100 + 86_400 + 86_400 + 120));
        assert!(!states.keys[1].is_over(until - 1) && states.keys[1].is_over(until));
        let states = States::taken_over(files, KeyAlgorithm::EdDsa, moment(100));
        assert_eq!(states.of(KeyState::Active).unwrap().file.to_string(), "eddsa-9.pem");
        assert_eq!(States::parse(&states.to_text()).unwrap(), states);
    }

    #[test]
    fn a_retired_key_stays_for_the_longest_token_that_it_signed() {
        let mut states = States::taken_over(Vec::new(), KeyAlgorithm::Es256, moment(0));
        states.add_next(files(&["es256-1.pem"]).remove(0), moment(1));
        states.rotate(moment(1));
        for secs in [900, 3600, 60] {
            states.note_token_life(secs);
        }
        states.add_next(files(&["es256-2.pem"]).remove(0), moment(2));
        states.rotate(moment(10));
        assert_eq!(states.keys[0].until, Some(moment(10 + 3600 + 86_400 + 120)));
        assert_eq!(shown(&states), ["es256-1.pem retired 10", "es256-2.pem active 10"]);
    }

    #[test]
    fn what_is_no_sound_file_of_states_is_refused() {
        let key = |file: &str, state: &str| {
            format!("{{\"file\": \"{file}\", \"state\": \"{state}\", \"since\": 1}}")
        };
        let (one, two) = (key("es256-1.pem", "active"), key("es256-2.pem", "active"));
        let file =
            |format: u32, keys: &str| format!("{{\"format\": {format}, \"keys\": [{keys}]}}");
        States::parse(file(1, &one).as_bytes()).unwrap();
        for text in [
            String::new(),
            file(2, &one),
            file(1, &format!("{one},{two}")),
            file(1, &key("es256-1.pem", "lost")),
            file(1, &key("../es256-1.pem", "active")),
            file(1, &key("/etc/es256-1.pem", "active")),
        ] {
            assert!(States::parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
