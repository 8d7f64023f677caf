//! What becomes of the rows: pure, but for the new keys that are made.

use berth_shared::clock::UnixSeconds;
use zeroize::Zeroizing;

use super::loading::{infos, load_all, of_rows, open, states};
use crate::{
    audit::Act,
    database::signing_keys::{KeyChange, SealedKey},
    keys::{
        How, KeyError, KeyInfo, KeyState, Rotated, Sealer, Settings, SigningKeys,
        file::KeyFile,
        pair::generate,
        rules,
        states::{Entry, States},
    },
};

/// What is missing is made, and what time has made due is done.
pub(super) fn opened(
    rows: &[SealedKey],
    sealer: &Sealer,
    settings: &Settings,
    now: UnixSeconds,
) -> Result<KeyChange<SigningKeys>, KeyError> {
    let mut states = states(rows)?;
    states.forget(now);
    // What is there is looked at before anything is made: a key that must not sign is named.
    load_all(rows, sealer, settings)?;
    let mut bench = Bench::new(rows, settings, now);
    rules::complete(&mut states, settings, now, || bench.make())?;
    let keys = bench.rows(&states, sealer)?;
    let done = of_rows(&keys, sealer, settings)?;
    Ok(KeyChange { keys, voids_tokens: false, done, acts: |_| Vec::new() })
}

/// What a rotation would do.
pub(super) fn planned(
    rows: &[SealedKey],
    sealer: &Sealer,
    settings: &Settings,
    how: How,
    now: UnixSeconds,
) -> Result<Rotated, KeyError> {
    let before = infos(rows, how, sealer, settings)?;
    check_age(&before, how, now)?;
    Ok(Rotated::planned(&before, how))
}

/// The keys are rotated.
pub(super) fn rotated(
    rows: &[SealedKey],
    sealer: &Sealer,
    settings: &Settings,
    how: How,
    now: UnixSeconds,
) -> Result<KeyChange<Rotated>, KeyError> {
    let before = infos(rows, how, sealer, settings)?;
    check_age(&before, how, now)?;
    // Where all of them go, it does not matter what they were.
    let stay = if how == How::Compromised { &[] } else { rows };
    let mut states = states(stay)?;
    let mut bench = Bench::new(rows, settings, now);
    rules::rotate(&mut states, how, settings, now, || bench.make())?;
    let keys = bench.rows(&states, sealer)?;
    let done = Rotated::done(&before, how, &of_rows(&keys, sealer, settings)?);
    let voids_tokens = how == How::Compromised;
    Ok(KeyChange { keys, voids_tokens, done, acts: Rotated::acts })
}

/// All of them are sealed anew. How many those are.
pub(super) fn resealed(rows: &[SealedKey], sealer: &Sealer) -> Result<KeyChange<usize>, KeyError> {
    let anew = |row: &SealedKey| -> Result<SealedKey, KeyError> {
        let sealed = sealer.seal(&open(row, sealer)?, &row.name, &row.algorithm)?;
        Ok(SealedKey { sealed, ..row.clone() })
    };
    let keys = rows.iter().map(anew).collect::<Result<Vec<_>, _>>()?;
    let done = keys.len();
    let acts = |count: &usize| vec![Act::KeyReseal(*count)];
    Ok(KeyChange { keys, voids_tokens: false, done, acts })
}

/// Where new keys are made for an act: what is there, and what was made.
struct Bench<'r> {
    rows: &'r [SealedKey],
    made: Vec<(KeyFile, Zeroizing<Vec<u8>>)>,
    settings: &'r Settings,
    now: UnixSeconds,
}

impl<'r> Bench<'r> {
    fn new(rows: &'r [SealedKey], settings: &'r Settings, now: UnixSeconds) -> Self {
        Self { rows, made: Vec::new(), settings, now }
    }

    /// Makes a key that no state names yet.
    fn make(&mut self) -> Result<KeyFile, KeyError> {
        let is_free = |file: &KeyFile| {
            let name = file.name();
            self.rows.iter().all(|row| row.name != name)
                && self.made.iter().all(|(made, _)| made != file)
        };
        let file = rules::free_name(self.settings, self.now, is_free)?;
        self.made.push((file.clone(), generate(self.settings.algorithm)?));
        Ok(file)
    }

    /// The rows of these states: those that are there keep what is sealed in them.
    fn rows(&self, states: &States, sealer: &Sealer) -> Result<Vec<SealedKey>, KeyError> {
        let row = |entry: &Entry| -> Result<SealedKey, KeyError> {
            let (name, algorithm) = (entry.file.name(), entry.file.algorithm.word().to_owned());
            let made = self.made.iter().find(|(file, _)| *file == entry.file);
            let sealed = match made {
                Some((_, der)) => sealer.seal(der, &name, &algorithm)?,
                None => {
                    let there = self.rows.iter().find(|row| row.name == name);
                    there.map(|row| row.sealed.clone()).ok_or(KeyError::Making)?
                }
            };
            Ok(SealedKey {
                name,
                algorithm,
                state: entry.state.word().to_owned(),
                made: entry.file.made,
                since: entry.since,
                token_life_secs: entry.token_life_secs,
                until: entry.until,
                sealed,
            })
        };
        states.keys.iter().map(row).collect()
    }
}

fn check_age(before: &[KeyInfo], how: How, now: UnixSeconds) -> Result<(), KeyError> {
    rules::check_age(before.iter().find(|key| key.state == KeyState::Next), how, now)
}
