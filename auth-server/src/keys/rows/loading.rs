//! Rows read into keys and their states.

use zeroize::Zeroizing;

use crate::{
    database::signing_keys::SealedKey,
    keys::{
        How, KeyAlgorithm, KeyError, KeyInfo, KeyState, Sealer, Settings, SigningKey, SigningKeys,
        Unfit,
        file::KeyFile,
        states::{Entry, States},
    },
};

/// What the place is called where there are no keys.
const PLACE: &str = "the database";

const ALGORITHMS: [KeyAlgorithm; 2] = [KeyAlgorithm::Es256, KeyAlgorithm::EdDsa];

const STATES: [KeyState; 3] = [KeyState::Active, KeyState::Next, KeyState::Retired];

/// The keys that these rows are.
///
/// # Errors
/// When there are none, or one is not fit to sign.
pub fn of_rows(
    rows: &[SealedKey],
    sealer: &Sealer,
    settings: &Settings,
) -> Result<SigningKeys, KeyError> {
    let keys = load_all(rows, sealer, settings)?;
    SigningKeys::new(keys, states(rows)?).ok_or_else(|| KeyError::NoKey(PLACE.to_owned()))
}

/// What is known of the keys. Where they are dropped anyhow, one that does not open any more is known by
/// its name.
pub(super) fn infos(
    rows: &[SealedKey],
    how: How,
    sealer: &Sealer,
    settings: &Settings,
) -> Result<Vec<KeyInfo>, KeyError> {
    if how != How::Compromised {
        return Ok(of_rows(rows, sealer, settings)?.infos());
    }
    let info = |row: &SealedKey| match load(row, sealer, settings) {
        Ok(key) => key.info,
        Err(_) => unopened(row, settings),
    };
    Ok(rows.iter().map(info).collect())
}

/// What is known of a key that does not open, and perhaps not what it was good for.
fn unopened(row: &SealedKey, settings: &Settings) -> KeyInfo {
    let SealedKey { made, since, until, .. } = *row;
    let entry = entry(row).ok();
    KeyInfo {
        id: row.name.clone(),
        algorithm: entry.as_ref().map_or(settings.algorithm, |entry| entry.file.algorithm),
        state: entry.map_or(KeyState::Retired, |entry| entry.state),
        made,
        since,
        signs_from: None,
        until,
    }
}

/// What a row says, but for the key in it. Its name says algorithm and time as well, and they must agree.
fn entry(row: &SealedKey) -> Result<Entry, KeyError> {
    let file = KeyFile::named(&row.name).ok();
    let algorithm = ALGORITHMS.into_iter().find(|algorithm| algorithm.word() == row.algorithm);
    let state = STATES.into_iter().find(|state| state.word() == row.state);
    let agrees = |file: &KeyFile| Some(file.algorithm) == algorithm && file.made == row.made;
    let (Some(file), Some(state)) = (file.filter(agrees), state) else {
        return Err(wrong(row, "says of itself what no Berth writes".to_owned()));
    };
    let SealedKey { since, token_life_secs, until, .. } = *row;
    Ok(Entry { file, state, since, token_life_secs, until })
}

/// Which key is good for what.
pub(super) fn states(rows: &[SealedKey]) -> Result<States, KeyError> {
    let entries = rows.iter().map(entry).collect::<Result<_, _>>()?;
    States::of_entries(entries).map_err(|state| {
        let word = state.word();
        let names = rows.iter().filter(|row| row.state == word).map(|row| &*row.name);
        let name = names.collect::<Vec<_>>().join(" and ");
        KeyError::Row { name, reason: format!("says that it is {word}, as one alone may") }
    })
}

/// Each key.
pub(super) fn load_all(
    rows: &[SealedKey],
    sealer: &Sealer,
    settings: &Settings,
) -> Result<Vec<SigningKey>, KeyError> {
    rows.iter().map(|row| load(row, sealer, settings)).collect()
}

fn load(row: &SealedKey, sealer: &Sealer, settings: &Settings) -> Result<SigningKey, KeyError> {
    let key = SigningKey::of(&entry(row)?, &open(row, sealer)?, settings.ids);
    key.map_err(|unfit| match unfit {
        Unfit::NoKey => wrong(row, "is no usable signing key".to_owned()),
        Unfit::Published(source_of) => {
            wrong(row, format!("is printed in {source_of}, so anybody can sign with it"))
        }
    })
}

/// The private half.
pub(super) fn open(row: &SealedKey, sealer: &Sealer) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let opened = sealer.open(&row.sealed, &row.name, &row.algorithm);
    opened.ok_or_else(|| {
        let file = sealer.path().display();
        wrong(row, format!("was not sealed with what is in {file}: put that file back"))
    })
}

fn wrong(row: &SealedKey, reason: String) -> KeyError {
    KeyError::Row { name: row.name.clone(), reason }
}
