//! What becomes of the keys' states, wherever they are kept: what is missing or due, and a rotation.
//! How a key is made is the keeper's affair.

use berth_shared::clock::UnixSeconds;

use super::{
    KeyError, KeyInfo, KeyState, NEXT_AGE_SECS_MIN, file::KeyFile, settings::Settings,
    states::States,
};

/// How a rotation treats the keys that are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Once every registry knows the next key.
    InOrder,
    /// Whether or not every registry knows the next key.
    Now,
    /// As [`Now`](Self::Now), and none of the keys that are there is used or published any more:
    /// who read one has probably read them all, the next one included.
    Compromised,
}

/// Makes the keys that are missing, and lets a changed algorithm take effect when it can.
pub(super) fn complete(
    states: &mut States,
    settings: &Settings,
    now: UnixSeconds,
    mut make: impl FnMut() -> Result<KeyFile, KeyError>,
) -> Result<(), KeyError> {
    let algorithm = settings.algorithm;
    let is_missing = states.of(KeyState::Active).is_none();
    if is_missing && states.of(KeyState::Next).is_none() {
        states.add_next(make()?, now);
    }
    if is_missing {
        states.rotate(now);
    }
    states.note_token_life(settings.token_life_secs);
    states.drop_next_unless(algorithm);
    if states.is_change_due(algorithm, now) {
        states.rotate(now);
        states.note_token_life(settings.token_life_secs);
    }
    if states.of(KeyState::Next).is_none() {
        states.add_next(make()?, now);
    }
    Ok(())
}

/// The next key signs, the one that signed retires, and there is a new next one; or all of them go, and
/// there are two new ones.
pub(super) fn rotate(
    states: &mut States,
    how: How,
    settings: &Settings,
    now: UnixSeconds,
    mut make: impl FnMut() -> Result<KeyFile, KeyError>,
) -> Result<(), KeyError> {
    if how == How::Compromised {
        states.keys.clear();
        states.add_next(make()?, now);
    }
    states.rotate(now);
    states.note_token_life(settings.token_life_secs);
    states.add_next(make()?, now);
    Ok(())
}

/// Refuses while somebody may not know the `next` key yet.
pub(super) fn check_age(
    next: Option<&KeyInfo>,
    how: How,
    now: UnixSeconds,
) -> Result<(), KeyError> {
    if how != How::InOrder {
        return Ok(());
    }
    // A directory that an older Berth left has none; the server makes it when it starts.
    let signs_from = next.and_then(|key| key.signs_from).unwrap_or(now + NEXT_AGE_SECS_MIN);
    if signs_from > now { Err(KeyError::TooYoung(signs_from)) } else { Ok(()) }
}

/// The first name for a key of `settings`, made now, that nobody has.
pub(super) fn free_name(
    settings: &Settings,
    now: UnixSeconds,
    is_free: impl Fn(&KeyFile) -> bool,
) -> Result<KeyFile, KeyError> {
    let named = |number| KeyFile { algorithm: settings.algorithm, made: now, number };
    (0..).map(named).find(is_free).ok_or(KeyError::Making)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::keys::{KeyAlgorithm, KeyIds};

    const NOW: UnixSeconds = UnixSeconds::new(1_790_000_000);

    fn settings(algorithm: KeyAlgorithm) -> Settings {
        Settings {
            directory: PathBuf::new(),
            sealed_with: None,
            algorithm,
            ids: KeyIds::default(),
            token_life_secs: 900,
        }
    }

    /// What a keeper without keys does: names them.
    fn maker(settings: &Settings, now: UnixSeconds) -> impl FnMut() -> Result<KeyFile, KeyError> {
        let (settings, mut names) = (settings.clone(), Vec::new());
        move || {
            let name = free_name(&settings, now, |name| !names.contains(name))?;
            names.push(name.clone());
            Ok(name)
        }
    }

    fn shown(states: &States) -> Vec<String> {
        states.keys.iter().map(|key| format!("{} {}", key.file, key.state.word())).collect()
    }

    #[test]
    fn two_keys_are_made_where_there_are_none_and_no_more_later() {
        let settings = settings(KeyAlgorithm::Es256);
        let mut states = States::of_entries(Vec::new()).unwrap();
        complete(&mut states, &settings, NOW, maker(&settings, NOW)).unwrap();
        let expected = ["es256-1790000000.pem active", "es256-1790000000-1.pem next"];
        assert_eq!(shown(&states), expected);
        let before = states.clone();
        complete(&mut states, &settings, NOW + 1, || Err(KeyError::Making)).unwrap();
        assert_eq!(states, before);
    }

    #[test]
    fn a_rotation_keeps_the_old_key_and_one_of_leaked_keys_none() {
        let settings = settings(KeyAlgorithm::Es256);
        let mut states = States::of_entries(Vec::new()).unwrap();
        complete(&mut states, &settings, NOW, maker(&settings, NOW)).unwrap();
        let later = NOW + 500;
        rotate(&mut states, How::Now, &settings, later, maker(&settings, later)).unwrap();
        let expected = [
            "es256-1790000000.pem retired",
            "es256-1790000000-1.pem active",
            "es256-1790000500.pem next",
        ];
        assert_eq!(shown(&states), expected);
        let later = NOW + 600;
        rotate(&mut states, How::Compromised, &settings, later, maker(&settings, later)).unwrap();
        let expected = ["es256-1790000600.pem active", "es256-1790000600-1.pem next"];
        assert_eq!(shown(&states), expected);
    }

    #[test]
    fn another_algorithm_waits_until_its_key_is_known() {
        let es256 = settings(KeyAlgorithm::Es256);
        let eddsa = settings(KeyAlgorithm::EdDsa);
        let mut states = States::of_entries(Vec::new()).unwrap();
        complete(&mut states, &es256, NOW, maker(&es256, NOW)).unwrap();
        complete(&mut states, &eddsa, NOW, maker(&eddsa, NOW)).unwrap();
        let expected = ["es256-1790000000.pem active", "eddsa-1790000000.pem next"];
        assert_eq!(shown(&states), expected);
        for (at, signs) in [
            (NOW + NEXT_AGE_SECS_MIN - 1, "es256-1790000000.pem"),
            (NOW + NEXT_AGE_SECS_MIN, "eddsa-1790000000.pem"),
        ] {
            complete(&mut states, &eddsa, at, maker(&eddsa, at)).unwrap();
            assert_eq!(states.of(KeyState::Active).unwrap().file.to_string(), signs);
        }
    }
}
